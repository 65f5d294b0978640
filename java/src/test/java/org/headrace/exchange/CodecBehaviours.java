package org.headrace.exchange;

import static org.headrace.exchange.Behaviours.check;
import static org.headrace.exchange.Behaviours.checkEqual;
import static org.headrace.exchange.Behaviours.checkThrows;

import org.apache.flink.core.memory.MemorySegment;
import org.apache.flink.core.memory.MemorySegmentFactory;
import org.apache.flink.table.data.GenericArrayData;
import org.apache.flink.table.data.GenericMapData;
import org.apache.flink.table.data.GenericRowData;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.data.StringData;
import org.apache.flink.table.data.TimestampData;
import org.apache.flink.table.data.binary.BinaryStringData;
import org.apache.flink.table.types.logical.BigIntType;
import org.apache.flink.table.types.logical.DayTimeIntervalType;
import org.apache.flink.table.types.logical.LogicalType;
import org.apache.flink.table.types.logical.RowType;

import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;

/** Writer and reader of batches, where no second language is needed. */
public final class CodecBehaviours {

    private static final int SLOT_BYTES = 1 << 16;

    private CodecBehaviours() {}

    public static void aTypeThatCannotTravelIsRefusedByName() {
        LogicalType interval = new DayTimeIntervalType(DayTimeIntervalType.DayTimeResolution.DAY);
        RowType inner = RowType.of(new LogicalType[] {interval}, new String[] {"pause"});
        RowType type = RowType.of(new LogicalType[] {inner}, new String[] {"trip"});
        checkThrows(
                UnsupportedTypeException.class,
                () -> ArrowSchemas.toArrow(type),
                "`trip.pause`",
                "INTERVAL DAY");
        checkThrows(UnsupportedTypeException.class, () -> new BatchWriter(type, 1), "`trip.pause`");
        checkThrows(UnsupportedTypeException.class, () -> new BatchReader(type), "`trip.pause`");
    }

    public static void aColumnWithTheReservedNameIsRefused() {
        RowType type =
                RowType.of(
                        new LogicalType[] {new BigIntType()},
                        new String[] {ArrowSchemas.TIMESTAMP_COLUMN});
        checkThrows(ExchangeException.class, () -> ArrowSchemas.toArrow(type), "reserved");
    }

    public static void aNanosecondTimestampOutOfRangeIsAnErrorWithColumnAndValue() {
        RowType type = QueueFixture.type("ROW<at TIMESTAMP(9)>");
        for (String value : List.of("1677-09-21T00:12:43.145224191", "2262-04-11T23:47:16.854775808")) {
            TimestampData timestamp =
                    TimestampData.fromLocalDateTime(java.time.LocalDateTime.parse(value));
            checkThrows(
                    ExchangeException.class,
                    () -> message(type, GenericRowData.of(timestamp)),
                    "`at`",
                    value);
        }
    }

    public static void theFirstAndLastNanosecondTimestampTravel() {
        RowType type = QueueFixture.type("ROW<at TIMESTAMP(9)>");
        for (String value : List.of("1677-09-21T00:12:43.145224192", "2262-04-11T23:47:16.854775807")) {
            TimestampData timestamp =
                    TimestampData.fromLocalDateTime(java.time.LocalDateTime.parse(value));
            checkEqual(
                    rows(type, message(type, GenericRowData.of(timestamp))),
                    List.of("(" + value + ")"));
        }
    }

    public static void aMapWithANullKeyIsAnErrorWithTheColumn() {
        RowType type = QueueFixture.type("ROW<counts MAP<STRING, INT>>");
        Map<Object, Object> map = new HashMap<>();
        map.put(null, 1);
        checkThrows(
                ExchangeException.class,
                () -> message(type, GenericRowData.of(new GenericMapData(map))),
                "`counts.key`",
                "NULL key");
    }

    public static void aNullForANotNullColumnIsAnErrorWithTheColumn() {
        byte[] message = message(QueueFixture.type("ROW<a INT>"), GenericRowData.of((Object) null));
        checkThrows(
                ExchangeException.class,
                () -> rows(QueueFixture.type("ROW<a INT NOT NULL>"), message),
                "`a`",
                "NOT NULL");
    }

    public static void aTextThatSpansMemorySegmentsIsCopiedWhole() {
        byte[] bytes = "héllo wörld, in three parts".getBytes(java.nio.charset.StandardCharsets.UTF_8);
        int part = 11;
        MemorySegment[] parts = new MemorySegment[3];
        for (int i = 0; i < parts.length; i++) {
            byte[] copy = new byte[part];
            int from = i * part;
            int offset = 2; // the text starts inside the first segment
            for (int j = 0; j < part; j++) {
                int at = from + j - offset;
                copy[j] = at >= 0 && at < bytes.length ? bytes[at] : (byte) '#';
            }
            parts[i] = MemorySegmentFactory.wrap(copy);
        }
        RowType type = QueueFixture.type("ROW<s STRING>");
        BinaryStringData text = BinaryStringData.fromAddress(parts, 2, bytes.length);
        checkEqual(
                rows(type, message(type, GenericRowData.of(text))),
                List.of("(héllo wörld, in three parts)"));
    }

    public static void aRowThatDoesNotFitLeavesNoTraceInTheBatch() {
        RowType type =
                QueueFixture.type("ROW<a INT, b BOOLEAN, c ARRAY<INT>, d ROW<e STRING>, s STRING>");
        BatchWriter writer = new BatchWriter(type, 100);
        MemorySegment slot = MemorySegmentFactory.allocateUnpooledOffHeapMemory(SLOT_BYTES);
        writer.begin(slot);
        GenericRowData small =
                GenericRowData.of(
                        1,
                        true,
                        new GenericArrayData(new Integer[] {1, null}),
                        GenericRowData.of(StringData.fromString("e")),
                        StringData.fromString("s"));
        StringData text = StringData.fromString("x".repeat(SLOT_BYTES));
        GenericRowData large = GenericRowData.of(null, null, null, null, text);
        check(writer.write(small, true, 5), "a small row fits");
        check(!writer.write(large, true, 6), "a large row does not fit");
        check(writer.write(small, false, 0), "another small row fits");
        byte[] message = finish(writer, slot);
        String expected = "(1, true, [1, NULL], (e), s)";
        checkEqual(rows(type, message), List.of(expected, expected));
    }

    public static void batchesStayLargeAfterARareLargeRow() {
        RowType type = QueueFixture.type("ROW<i INT, s STRING>");
        BatchWriter writer = new BatchWriter(type, 1000);
        MemorySegment slot = MemorySegmentFactory.allocateUnpooledOffHeapMemory(1 << 20);
        GenericRowData large =
                GenericRowData.of(1, StringData.fromString("x".repeat((1 << 20) - 4096)));
        GenericRowData small = GenericRowData.of(1, StringData.fromString("x"));
        fill(writer, slot, small);
        writer.beginFor(large, slot);
        check(writer.write(large, false, 0), "a measured row fits");
        writer.finish();
        int batches = 0;
        int rows = 0;
        while (rows < 1000) {
            rows += fill(writer, slot, small);
            batches++;
        }
        check(batches <= 10, batches + " batches for 1000 rows");
        fill(writer, slot, small); // back to a multiple of the batch's rows
        checkEqual(fill(writer, slot, small), 1000);
    }

    public static void aBatchThatEndedEarlyMakesTheNextOneShorterByItsRows() {
        RowType type = QueueFixture.type("ROW<i INT>");
        BatchWriter writer = new BatchWriter(type, 100);
        MemorySegment slot = MemorySegmentFactory.allocateUnpooledOffHeapMemory(SLOT_BYTES);
        writer.begin(slot);
        for (int i = 0; i < 30; i++) {
            writer.write(GenericRowData.of(i), false, 0);
        }
        writer.finish();
        checkEqual(fill(writer, slot, GenericRowData.of(1)), 70);
        checkEqual(fill(writer, slot, GenericRowData.of(1)), 100);
        writer.begin(slot);
        writer.write(GenericRowData.of(1), false, 0);
        writer.finish();
        writer.cut();
        checkEqual(fill(writer, slot, GenericRowData.of(1)), 100);
    }

    public static void rowsWithAndWithoutTimestampMixInABatch() {
        RowType type = QueueFixture.type("ROW<i INT>");
        BatchWriter writer = new BatchWriter(type, 100);
        MemorySegment slot = MemorySegmentFactory.allocateUnpooledOffHeapMemory(SLOT_BYTES);
        for (int firstStamped : List.of(0, 1, 17, 99, 100)) {
            writer.begin(slot);
            for (int i = 0; i < 100; i++) {
                writer.write(GenericRowData.of(i), i >= firstStamped && i % 3 != 1, 1000L + i);
            }
            byte[] message = finish(writer, slot);
            BatchReader reader = new BatchReader(type);
            reader.open(FakeProcess.offHeap(message), message.length);
            for (int i = 0; i < 100; i++) {
                checkEqual(reader.hasTimestamp(i), i >= firstStamped && i % 3 != 1);
                if (reader.hasTimestamp(i)) {
                    checkEqual(reader.timestamp(i), 1000L + i);
                }
            }
        }
    }

    public static void manyNumberColumnsOfEveryKindKeepTheirValuesAndNulls() {
        List<String> kinds = List.of("TINYINT", "SMALLINT", "INT", "BIGINT", "FLOAT", "DOUBLE", "STRING");
        int columns = 300; // more than one generated method
        StringBuilder text = new StringBuilder("ROW<");
        for (int i = 0; i < columns; i++) {
            text.append(i == 0 ? "" : ", ").append("c").append(i).append(' ').append(kinds.get(i % 7));
        }
        RowType type = QueueFixture.type(text + ">");
        GenericRowData[] rows = new GenericRowData[20];
        List<String> expected = new ArrayList<>();
        for (int r = 0; r < rows.length; r++) {
            rows[r] = new GenericRowData(columns);
            for (int i = 0; i < columns; i++) {
                rows[r].setField(i, (i + r) % 5 == 0 ? null : number(i % 7, i + r));
            }
            expected.add(RowTexts.of(rows[r], type));
        }
        checkEqual(rows(type, message(type, rows)), expected);
    }

    private static Object number(int kind, int value) {
        switch (kind) {
            case 0:
                return (byte) value;
            case 1:
                return (short) -value;
            case 2:
                return value;
            case 3:
                return -1L * value;
            case 4:
                return value / 2f;
            case 5:
                return value / 3d;
            default:
                return StringData.fromString("text " + value);
        }
    }

    public static void brokenMessagesAreRefusedAndNeverReadOutsideTheirMemory() {
        RowType type =
                QueueFixture.type(
                        "ROW<a INT, b BOOLEAN, s STRING, `dec` DECIMAL(30, 2), l ARRAY<FLOAT>,"
                                + " r ROW<x STRING, m MAP<INT, STRING>>, t TIMESTAMP(9)>");
        RowData row =
                GenericRowData.of(
                        1,
                        true,
                        StringData.fromString("text"),
                        null,
                        new GenericArrayData(new float[] {1, 2}),
                        GenericRowData.of(
                                StringData.fromString("x"),
                                new GenericMapData(Map.of(1, StringData.fromString("y")))),
                        TimestampData.fromEpochMillis(1, 2));
        byte[] message = message(type, row, GenericRowData.of(2, null, null, null, null, null, null));
        Random random = new Random(20131231);
        int refused = 0;
        for (int i = 0; i < 20_000; i++) {
            byte[] broken = message.clone();
            int changes = 1 + random.nextInt(3);
            for (int change = 0; change < changes; change++) {
                broken[random.nextInt(broken.length)] = (byte) random.nextInt();
            }
            int length = random.nextInt(4) == 0 ? random.nextInt(broken.length) : broken.length;
            try {
                rows(type, java.util.Arrays.copyOf(broken, Math.max(1, length)));
            } catch (ExchangeException e) {
                refused++;
            }
        }
        check(refused > 2_000, "refused only " + refused);
    }

    public static void anotherSchemaIsRefused() {
        byte[] message = message(QueueFixture.type("ROW<a INT>"), GenericRowData.of(1));
        checkThrows(
                MalformedMessageException.class,
                () -> rows(QueueFixture.type("ROW<a INT, b INT>"), message),
                "2 nodes and 4 buffers, not 3 and 6");
        checkThrows(
                MalformedMessageException.class,
                () -> rows(QueueFixture.type("ROW<a BIGINT>"), message),
                "column `a` has 4 bytes, not 8");
    }

    private static int fill(BatchWriter writer, MemorySegment slot, RowData row) {
        writer.begin(slot);
        while (writer.write(row, false, 0)) {
            continue;
        }
        int rows = writer.rows();
        writer.finish();
        return rows;
    }

    private static byte[] message(RowType type, RowData... rows) {
        return FakeProcess.message(type, rows);
    }

    private static byte[] finish(BatchWriter writer, MemorySegment memory) {
        byte[] message = new byte[writer.finish()];
        memory.get(0, message);
        return message;
    }

    private static List<String> rows(RowType type, byte[] message) {
        BatchReader reader = new BatchReader(type);
        reader.open(FakeProcess.offHeap(message), message.length);
        List<String> rows = new ArrayList<>();
        for (int i = 0; i < reader.rows(); i++) {
            rows.add(RowTexts.of(reader.row(i), type));
        }
        return rows;
    }
}
