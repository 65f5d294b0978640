package org.headrace.exchange;

import org.apache.flink.table.data.ArrayData;
import org.apache.flink.table.data.RowData;

import java.util.List;

/** BOOLEAN: one bit per element, least significant bit first. */
final class BooleanColumnWriter extends ColumnWriter {

    private int dataAt;

    BooleanColumnWriter(String path) {
        super(path);
    }

    @Override
    boolean write(RowData row, int position) {
        return row.isNullAt(position) ? writeNull() : append(row.getBoolean(position));
    }

    @Override
    boolean write(ArrayData array, int position) {
        return array.isNullAt(position) ? writeNull() : append(array.getBoolean(position));
    }

    @Override
    boolean writeNull() {
        markNull();
        return append(false);
    }

    private boolean append(boolean value) {
        int at = dataAt + (count >>> 3);
        int used = count & 7;
        // Bits from `used` on may be stale: from another batch, or from a row taken back.
        int kept = used == 0 ? 0 : bytes.get(at) & ((1 << used) - 1);
        bytes.put(at, (byte) (value ? kept | (1 << used) : kept));
        count++;
        return true;
    }

    @Override
    double fixedBytes() {
        return 0.25;
    }

    @Override
    long place(long at) {
        long data = super.place(at);
        dataAt = (int) data;
        return align(data + ((capacity + 7) >>> 3));
    }

    @Override
    int bufferCount() {
        return 2;
    }

    @Override
    void collect(List<ColumnWriter> preorder) {
        preorder.add(this);
    }

    @Override
    void describe(MessageMetadata.Builder metadata) {
        super.describe(metadata);
        metadata.buffer(dataAt, (count + 7) >>> 3);
    }
}
