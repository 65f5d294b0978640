package org.headrace.exchange;

import org.apache.flink.table.data.ArrayData;
import org.apache.flink.table.data.RowData;

/** The hidden column of row timestamps, in milliseconds. */
final class TimestampColumnWriter extends FixedColumnWriter {

    TimestampColumnWriter() {
        super(ArrowSchemas.TIMESTAMP_COLUMN, Long.BYTES);
    }

    void append(boolean hasTimestamp, long timestamp) {
        if (hasTimestamp) {
            target.putLong(dataAt + count++ * Long.BYTES, timestamp);
        } else {
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
