package org.headrace.exchange;

import org.apache.flink.annotation.Internal;
import org.apache.flink.core.memory.MemorySegment;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.types.logical.RowType;

import org.headrace.exchange.FixedColumnWriter.Numbers;

import java.nio.ByteOrder;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.stream.IntStream;

/**
 * Writes rows as one Arrow IPC record-batch message straight into shared memory.
 *
 * <p>The regions of the message are laid out when a batch begins: elements of fixed width for the
 * rows the batch may take, strings and lists by what the batches before needed. A row that does not
 * fit is taken back completely; a row that does not fit an empty batch is measured and laid out
 * exactly.
 *
 * <p>A batch that ended early (linger, large rows) makes the next one as much shorter as brings the
 * total to a multiple of {@code batchRows} again: a reader that asks for that many rows, or a divisor, gets
 * its batches in place and not copied together. Where the slot limits a batch and not {@code batchRows},
 * nothing is done.
 *
 * <p>Usage: {@link #begin}, {@link #write} until false or {@link #isFull}, {@link #finish}. After an
 * exception from {@link #write} the open batch is unusable.
 *
 * <p>Thread model: task thread only. Holds no resources.
 */
@Internal
public final class BatchWriter {

    private final ColumnWriter[] columns;
    private final NumberColumns numbers;
    private final ColumnWriter[] others; // the columns that are no numbers
    private final int[] positions; // of the others in the row
    private final TimestampColumnWriter timestamps;
    private final List<ColumnWriter> preorder = new ArrayList<>();
    private final MessageMetadata.Builder metadata;
    private final int batchRows;

    private Target target;
    private int rowCapacity;
    private int rows;
    private int surplusRows; // behind the last whole batchRows since the start or a cut
    private int plannedSpace;
    private int plannedRows;
    private Estimate.Source source = Estimate.Source.MIXED_ROWS;

    /**
     * Builds a writer of batches of at most {@code batchRows} rows.
     *
     * @throws UnsupportedTypeException if a column has a type that cannot travel
     */
    public BatchWriter(RowType type, int batchRows) {
        if (ByteOrder.nativeOrder() != ByteOrder.LITTLE_ENDIAN) {
            throw new ExchangeException("The memory queue needs a little-endian machine.");
        }
        this.batchRows = batchRows;
        columns = ColumnWriters.fields("", type);
        numbers = NumberColumnsCompiler.compile(columns);
        positions =
                IntStream.range(0, columns.length)
                        .filter(i -> !(columns[i] instanceof Numbers))
                        .toArray();
        others = Arrays.stream(positions).mapToObj(i -> columns[i]).toArray(ColumnWriter[]::new);
        timestamps = new TimestampColumnWriter();
        for (ColumnWriter column : columns) {
            column.collect(preorder);
        }
        timestamps.collect(preorder);
        int buffers = preorder.stream().mapToInt(ColumnWriter::bufferCount).sum();
        metadata = new MessageMetadata.Builder(preorder.size(), buffers);
    }

    /** Starts a batch in {@code memory}, whose whole size may be used. */
    public void begin(MemorySegment memory) {
        source = Estimate.Source.MIXED_ROWS;
        layOut(memory.size());
        if (rowCapacity == batchRows) {
            rowCapacity -= surplusRows;
        }
        start(memory);
    }

    /** Starts a batch for {@code row} alone in {@code memory} of at least {@link #measure} bytes. */
    public void beginFor(RowData row, MemorySegment memory) {
        source = Estimate.Source.ONE_LARGE_ROW;
        measure(row);
        rowCapacity = 1;
        start(memory);
    }

    /** Bytes of the message that holds {@code row} alone. */
    public long measure(RowData row) {
        for (int i = 0; i < columns.length; i++) {
            columns[i].resetDemand();
            columns[i].capacity = 1;
            if (!row.isNullAt(i)) {
                columns[i].demand(row, i);
            }
        }
        timestamps.capacity = 1;
        plannedSpace = 0;
        return place();
    }

    /**
     * Appends a row; false if it does not fit any more, then nothing of it is in the batch.
     *
     * @throws ExchangeException if a value cannot be expressed in Arrow
     */
    public boolean write(RowData row, boolean hasTimestamp, long timestamp) {
        if (rows >= rowCapacity) {
            return false;
        }
        for (int i = 0; i < others.length; i++) {
            if (!others[i].write(row, positions[i])) {
                for (ColumnWriter column : others) {
                    column.truncate(rows);
                }
                return false;
            }
        }
        numbers.write(row, rows);
        timestamps.append(hasTimestamp, timestamp);
        rows++;
        return true;
    }

    public int rows() {
        return rows;
    }

    /** True if the batch surely takes no further row. */
    public boolean isFull() {
        return rows >= rowCapacity;
    }

    /** Bytes in the buffers of the last finished batch, without gaps. */
    public long payloadBytes() {
        return metadata.payloadBytes();
    }

    /** Completes the message and returns its bytes; the batch must hold at least one row. */
    public int finish() {
        numbers.end(rows);
        timestamps.end();
        metadata.clear();
        for (ColumnWriter column : preorder) {
            column.describe(metadata);
        }
        surplusRows = (surplusRows + rows) % batchRows;
        int messageBytes = metadata.write(target.segment(), rows);
        for (ColumnWriter column : columns) {
            column.learn(rows, source);
        }
        abandon();
        return messageBytes;
    }

    /** The reader hands out what it has before it goes on: its batches begin anew behind this. */
    public void cut() {
        surplusRows = 0;
    }

    /** Forgets the open batch and its memory, which may be unmapped after this. */
    public void abandon() {
        target = null;
        rowCapacity = 0;
    }

    private void start(MemorySegment memory) {
        target = Target.of(memory);
        rows = 0;
        if (rowCapacity == 0) {
            return; // not even one row of the usual size fits: the first one is measured
        }
        for (ColumnWriter column : columns) {
            column.begin(target);
        }
        numbers.begin(target);
        timestamps.begin(target);
    }

    private void layOut(int space) {
        double fixed = timestamps.fixedBytes();
        double variable = 0;
        for (ColumnWriter column : columns) {
            fixed += column.fixedBytes();
            variable += column.variableBytes();
        }
        if (variable == 0 && plannedSpace == space) {
            rowCapacity = plannedRows;
            return; // nothing to learn: the layout is that of the last batch
        }
        double usable = space - metadata.bodyAt() - slackBytes();
        rowCapacity = (int) Math.max(0, Math.min(batchRows, usable / (fixed + variable)));
        plannedSpace = space;
        plannedRows = rowCapacity;
        if (rowCapacity == 0) {
            return;
        }
        double spread = variable > 0 ? (usable - fixed * rowCapacity) / variable : 0;
        for (ColumnWriter column : columns) {
            column.adapt(rowCapacity, spread);
        }
        timestamps.adapt(rowCapacity, spread);
        if (place() > space) {
            throw new IllegalStateException("layout of " + place() + " bytes in " + space);
        }
    }

    /** More than rounding and alignment of all regions can take. */
    private long slackBytes() {
        return (long) metadata.bufferCount() * 2 * ColumnWriter.ALIGNMENT;
    }

    private long place() {
        long at = metadata.bodyAt();
        for (ColumnWriter column : columns) {
            at = column.place(at);
        }
        return timestamps.place(at);
    }
}
