package org.headrace.exchange;

import org.apache.flink.table.data.ArrayData;
import org.apache.flink.table.data.RowData;

/** The hidden column of row timestamps, in milliseconds. Costs nothing while no row has one. */
final class TimestampColumnWriter extends FixedColumnWriter {

    private boolean isAllNull;

    TimestampColumnWriter() {
        super(ArrowSchemas.TIMESTAMP_COLUMN, Long.BYTES);
    }

    @Override
    void begin(Target memory) {
        super.begin(memory);
        isAllNull = true;
    }

    void append(boolean hasTimestamp, long timestamp) {
        if (hasTimestamp) {
            if (isAllNull) {
                writeNullsSoFar();
            }
            bytes.putLong(dataAt + count++ * Long.BYTES, timestamp);
        } else if (isAllNull) {
            count++;
        } else {
            writeNull();
        }
    }

    /** Ends a batch. */
    void end() {
        if (isAllNull) {
            markAllNull(count);
        }
    }

    private void writeNullsSoFar() {
        isAllNull = false;
        int rows = count;
        count = 0;
        while (count < rows) {
            writeNull();
        }
    }

    @Override
    boolean write(RowData row, int position) {
        throw new UnsupportedOperationException("the timestamp is no field of the row");
    }

    @Override
    boolean write(ArrayData array, int position) {
        throw new UnsupportedOperationException("the timestamp is no field of the row");
    }
}
