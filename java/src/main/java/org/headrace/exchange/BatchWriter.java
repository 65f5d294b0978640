package org.headrace.exchange;

import org.apache.flink.annotation.Internal;
import org.apache.flink.core.memory.MemorySegment;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.types.logical.RowType;

import java.nio.ByteOrder;
import java.util.ArrayList;
import java.util.List;

/**
 * Writes rows as one Arrow IPC record-batch message straight into shared memory.
 *
 * <p>The regions of the message are laid out when a batch begins: elements of fixed width for the
 * rows the batch may take, strings and lists by what the batches before needed. A row that does not
 * fit is taken back completely; a row that does not fit an empty batch is measured and laid out
 * exactly.
 *
 * <p>Usage: {@link #begin}, {@link #write} until false or {@link #isFull}, {@link #finish}. After an
 * exception from {@link #write} the open batch is unusable.
 *
 * <p>Thread model: task thread only. Holds no resources.
 */
@Internal
public final class BatchWriter {

    private final ColumnWriter[] columns;
    private final TimestampColumnWriter timestamps;
    private final List<ColumnWriter> preorder = new ArrayList<>();
    private final MessageMetadata.Builder metadata;
    private final int batchRows;

    private MemorySegment target;
    private int rowCapacity;
    private int rows;
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
        ColumnWriter[] all = columns;
        for (int i = 0; i < all.length; i++) {
            if (!all[i].write(row, i)) {
                for (ColumnWriter column : all) {
                    column.truncate(rows);
                }
                return false;
            }
        }
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
        metadata.clear();
        for (ColumnWriter column : preorder) {
            column.describe(metadata);
        }
        int messageBytes = metadata.write(target, rows);
        for (ColumnWriter column : columns) {
            column.learn(rows, source);
        }
        target = null;
        rowCapacity = 0;
        return messageBytes;
    }

    private void start(MemorySegment memory) {
        target = memory;
        rows = 0;
        if (rowCapacity == 0) {
            return; // not even one row of the usual size fits: the first one is measured
        }
        for (ColumnWriter column : columns) {
            column.begin(memory);
        }
        timestamps.begin(memory);
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
