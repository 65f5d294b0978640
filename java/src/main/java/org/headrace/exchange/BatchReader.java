package org.headrace.exchange;

import org.apache.flink.annotation.Internal;
import org.apache.flink.core.memory.MemorySegment;
import org.apache.flink.table.data.binary.BinaryRowData;
import org.apache.flink.table.data.writer.BinaryRowWriter;
import org.apache.flink.table.types.logical.LogicalType;
import org.apache.flink.table.types.logical.RowType;

/**
 * Reads rows out of an Arrow IPC record-batch message in shared memory.
 *
 * <p>Nothing in the message is trusted: whatever does not match the schema, or points outside the
 * message, throws {@link MalformedMessageException}; no read leaves the memory given.
 *
 * <p>Usage: {@link #open}, then for each row from 0 to {@link #rows} {@link #row} and the
 * timestamp. Rows are fresh copies: they outlive the message.
 *
 * <p>Thread model: task thread only. Holds no resources.
 */
@Internal
public final class BatchReader {

    private static final int FIRST_VARIABLE_BYTES = 64;

    private final ColumnReader[] columns;
    private final boolean[] isNullable;
    private final NumberColumnReader timestamps;
    private final int nodeCount;
    private final int bufferCount;

    private int rows;
    private int variableBytes = FIRST_VARIABLE_BYTES;

    /**
     * Builds a reader of rows of {@code type}.
     *
     * @throws UnsupportedTypeException if a column has a type that cannot travel
     */
    public BatchReader(RowType type) {
        columns = ColumnReaders.fields("", type);
        isNullable = new boolean[columns.length];
        timestamps = new NumberColumnReader(ArrowSchemas.TIMESTAMP_COLUMN, NumberKind.LONG);
        int nodes = timestamps.nodeCount();
        int buffers = timestamps.bufferCount();
        for (int i = 0; i < columns.length; i++) {
            LogicalType column = type.getTypeAt(i);
            isNullable[i] = column.isNullable();
            nodes += columns[i].nodeCount();
            buffers += columns[i].bufferCount();
        }
        nodeCount = nodes;
        bufferCount = buffers;
    }

    /**
     * Starts on the message in the first {@code messageBytes} of {@code memory}.
     *
     * @throws MalformedMessageException if it is not a record batch of the schema
     */
    public void open(MemorySegment memory, int messageBytes) {
        MessageMetadata metadata =
                MessageMetadata.parse(memory, messageBytes, nodeCount, bufferCount);
        MessageMetadata.require(
                metadata.rows >= 0 && metadata.rows <= Integer.MAX_VALUE - 8,
                "%s rows",
                metadata.rows);
        rows = (int) metadata.rows;
        ColumnReader.Message message = new ColumnReader.Message(memory, metadata);
        for (ColumnReader column : columns) {
            column.load(message, rows);
        }
        timestamps.load(message, rows);
    }

    public int rows() {
        return rows;
    }

    /**
     * Returns row {@code index} as a fresh copy.
     *
     * @throws MalformedMessageException if a value cannot be
     * @throws ExchangeException if a column that is NOT NULL holds NULL
     */
    public BinaryRowData row(int index) {
        BinaryRowData row = new BinaryRowData(columns.length);
        BinaryRowWriter writer = new BinaryRowWriter(row, variableBytes);
        for (int i = 0; i < columns.length; i++) {
            ColumnReader column = columns[i];
            if (!column.isNull(index)) {
                column.read(index, writer, i);
            } else if (isNullable[i]) {
                column.readNull(writer, i);
            } else {
                throw new ExchangeException(
                        String.format(
                                "The process emitted NULL for column `%s`, which is NOT NULL. Emit"
                                        + " a value, or declare the column nullable.",
                                column.path));
            }
        }
        writer.complete();
        variableBytes = row.getSizeInBytes() - row.getFixedLengthPartSize();
        return row;
    }

    public boolean hasTimestamp(int index) {
        return !timestamps.isNull(index);
    }

    /** The row's timestamp in milliseconds; only where {@link #hasTimestamp}. */
    public long timestamp(int index) {
        return timestamps.value(index);
    }
}
