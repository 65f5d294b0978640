package org.headrace.exchange;

import org.apache.flink.core.memory.MemorySegment;
import org.apache.flink.table.data.GenericArrayData;
import org.apache.flink.table.data.GenericRowData;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.data.binary.BinaryRowData;
import org.apache.flink.table.data.binary.BinaryStringData;
import org.apache.flink.table.types.logical.RowType;
import org.apache.flink.table.types.logical.utils.LogicalTypeParser;

import java.nio.file.Path;
import java.util.List;
import java.util.Locale;
import java.util.function.LongFunction;

/**
 * Rows/s of writer and reader on one thread, without a process and without Flink's runtime. Arguments:
 * rows per run, runs.
 *
 * <p>The figure of the writer includes making each row: a GenericRowData with boxed fields.
 */
public final class ExchangeBenchmark {

    private static final int SLOTS = 8;
    private static final int SLOT_BYTES = 2 << 20;
    private static final int BATCH_ROWS = 4096;

    private ExchangeBenchmark() {}

    public static void main(String[] args) {
        long rows = Long.parseLong(args[0]);
        int runs = Integer.parseInt(args[1]);
        StringBuilder columns = new StringBuilder("ROW<");
        for (int i = 0; i < 16; i++) {
            columns.append(i == 0 ? "" : ", ").append("f").append(i).append(" FLOAT");
        }
        run("16 FLOAT", columns + ">", rows, runs, ExchangeBenchmark::floats);
        run(
                "4 BIGINT, 4 DOUBLE, 4 INT, 4 BOOLEAN",
                "ROW<a BIGINT, b BIGINT, c BIGINT, d BIGINT, e DOUBLE, f DOUBLE, g DOUBLE, h DOUBLE,"
                        + " i INT, j INT, k INT, l INT, m BOOLEAN, n BOOLEAN, o BOOLEAN, p BOOLEAN>",
                rows,
                runs,
                ExchangeBenchmark::mixed);
        BinaryStringData text = BinaryStringData.fromString("a text of 32 bytes, to be copied.");
        text.ensureMaterialized();
        run(
                "BIGINT, 2 STRING of 32 bytes",
                "ROW<a BIGINT, b STRING, c STRING>",
                rows,
                runs,
                i -> GenericRowData.of(i, text, text));
        GenericArrayData array = new GenericArrayData(new float[64]);
        run(
                "BIGINT, ARRAY of 64 FLOAT",
                "ROW<a BIGINT, b ARRAY<FLOAT>>",
                rows / 4,
                runs,
                i -> GenericRowData.of(i, array));
    }

    private static RowData floats(long i) {
        GenericRowData row = new GenericRowData(16);
        for (int field = 0; field < 16; field++) {
            row.setField(field, (float) (i + field));
        }
        return row;
    }

    private static RowData mixed(long i) {
        GenericRowData row = new GenericRowData(16);
        for (int field = 0; field < 4; field++) {
            row.setField(field, i + field);
            row.setField(4 + field, (double) (i + field));
            row.setField(8 + field, (int) i + field);
            row.setField(12 + field, (i & 1) == 0);
        }
        return row;
    }

    private static void run(
            String name, String columns, long rows, int runs, LongFunction<RowData> source) {
        RowType type =
                (RowType)
                        LogicalTypeParser.parse(
                                columns, ExchangeBenchmark.class.getClassLoader());
        try (Segment segment =
                Segment.create(
                        Segment.directories(List.of(Path.of("/tmp"))), SLOTS, SLOT_BYTES)) {
            for (int run = 0; run < runs; run++) {
                print(name, "make rows only", rows, makeRows(rows, source));
                print(name, "make and write", rows, write(type, segment, rows, source));
                print(name, "read", rows, read(type, segment, rows, source));
            }
        }
    }

    private static void print(String name, String what, long rows, double seconds) {
        System.out.printf(
                Locale.ROOT, "%-38s %-16s %7.3f Mrows/s%n", name, what, rows / seconds / 1e6);
    }

    private static double makeRows(long rows, LongFunction<RowData> source) {
        long start = System.nanoTime();
        int arity = 0;
        for (long i = 0; i < rows; i++) {
            arity += source.apply(i).getArity();
        }
        if (arity == 1) {
            System.out.println("never");
        }
        return (System.nanoTime() - start) / 1e9;
    }

    private static double write(
            RowType type, Segment segment, long rows, LongFunction<RowData> source) {
        BatchWriter writer = new BatchWriter(type, BATCH_ROWS);
        int slot = 0;
        writer.begin(segment.slot(slot));
        long start = System.nanoTime();
        for (long i = 0; i < rows; i++) {
            RowData row = source.apply(i);
            while (!writer.write(row, true, i)) {
                writer.finish();
                slot = (slot + 1) % SLOTS;
                writer.begin(segment.slot(slot));
            }
        }
        return (System.nanoTime() - start) / 1e9;
    }

    private static double read(
            RowType type, Segment segment, long rows, LongFunction<RowData> source) {
        BatchWriter writer = new BatchWriter(type, BATCH_ROWS);
        int[] messageBytes = new int[SLOTS];
        for (int slot = 0; slot < SLOTS; slot++) {
            MemorySegment memory = segment.slot(slot);
            writer.begin(memory);
            long i = 0;
            while (writer.write(source.apply(i), true, i)) {
                i++;
            }
            messageBytes[slot] = writer.finish();
        }
        BatchReader reader = new BatchReader(type);
        long bytes = 0;
        long start = System.nanoTime();
        long read = 0;
        while (read < rows) {
            for (int slot = 0; slot < SLOTS; slot++) {
                reader.open(segment.slot(slot), messageBytes[slot]);
                for (int i = 0; i < reader.rows(); i++) {
                    BinaryRowData row = reader.row(i);
                    bytes += row.getSizeInBytes() + reader.timestamp(i);
                }
                read += reader.rows();
            }
        }
        if (bytes == 1) {
            System.out.println("never");
        }
        return (System.nanoTime() - start) / 1e9 * rows / read;
    }
}
