package org.headrace.exchange;

import org.apache.flink.core.memory.MemorySegment;
import org.apache.flink.table.data.ArrayData;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.data.StringData;
import org.apache.flink.table.data.binary.BinaryStringData;

import java.util.List;

/** CHAR, VARCHAR (utf8) and BINARY, VARBINARY (binary): 32-bit offsets and a data region. */
final class BytesColumnWriter extends ColumnWriter {

    private static final double FIRST_GUESS_BYTES = 32;

    private final boolean isText;
    private double bytesPerRow = FIRST_GUESS_BYTES;
    private long dataCapacity;
    private int offsetsAt;
    private int dataAt;
    private int end;

    BytesColumnWriter(String path, boolean isText) {
        super(path);
        this.isText = isText;
    }

    @Override
    boolean write(RowData row, int position) {
        if (row.isNullAt(position)) {
            return writeNull();
        }
        return isText ? append(row.getString(position)) : append(row.getBinary(position));
    }

    @Override
    boolean write(ArrayData array, int position) {
        if (array.isNullAt(position)) {
            return writeNull();
        }
        return isText ? append(array.getString(position)) : append(array.getBinary(position));
    }

    @Override
    boolean writeNull() {
        markNull();
        return close();
    }

    private boolean append(byte[] value) {
        if (value.length > dataCapacity - end) {
            return false;
        }
        bytes.put(dataAt + end, value, 0, value.length);
        end += value.length;
        return close();
    }

    private boolean append(StringData value) {
        BinaryStringData text = (BinaryStringData) value;
        text.ensureMaterialized();
        int size = text.getSizeInBytes();
        if (size > dataCapacity - end) {
            return false;
        }
        int offset = text.getOffset();
        int at = dataAt + end;
        int left = size;
        for (MemorySegment segment : text.getSegments()) {
            if (offset >= segment.size()) {
                offset -= segment.size();
                continue;
            }
            int part = Math.min(left, segment.size() - offset);
            segment.copyTo(offset, target.segment(), at, part);
            at += part;
            left -= part;
            offset = 0;
            if (left == 0) {
                break;
            }
        }
        end += size;
        return close();
    }

    private boolean close() {
        count++;
        bytes.putInt(offsetsAt + count * Integer.BYTES, end);
        return true;
    }

    @Override
    void demand(RowData row, int position) {
        dataCapacity +=
                isText ? size(row.getString(position)) : row.getBinary(position).length;
    }

    @Override
    void demand(ArrayData array, int position) {
        dataCapacity +=
                isText ? size(array.getString(position)) : array.getBinary(position).length;
    }

    private static int size(StringData value) {
        BinaryStringData text = (BinaryStringData) value;
        text.ensureMaterialized();
        return text.getSizeInBytes();
    }

    @Override
    void resetDemand() {
        super.resetDemand();
        dataCapacity = 0;
    }

    @Override
    void adapt(long elements, double rows) {
        super.adapt(elements, rows);
        dataCapacity = (long) Math.ceil(bytesPerRow * rows);
    }

    @Override
    double fixedBytes() {
        return Integer.BYTES + 0.125;
    }

    @Override
    double variableBytes() {
        return bytesPerRow;
    }

    @Override
    void learn(int rows, Estimate.Source source) {
        bytesPerRow = Estimate.next(bytesPerRow, end, rows, source);
    }

    @Override
    long place(long at) {
        long offsets = super.place(at);
        long data = align(offsets + (capacity + 1) * Integer.BYTES);
        offsetsAt = (int) offsets;
        dataAt = (int) data;
        return align(data + dataCapacity);
    }

    @Override
    void begin(Target memory) {
        super.begin(memory);
        end = 0;
        bytes.putInt(offsetsAt, 0);
    }

    @Override
    void truncate(int newCount) {
        super.truncate(newCount);
        end = bytes.getInt(offsetsAt + newCount * Integer.BYTES);
    }

    @Override
    int bufferCount() {
        return 3;
    }

    @Override
    void collect(List<ColumnWriter> preorder) {
        preorder.add(this);
    }

    @Override
    void describe(MessageMetadata.Builder metadata) {
        super.describe(metadata);
        metadata.buffer(offsetsAt, (count + 1L) * Integer.BYTES);
        metadata.buffer(dataAt, end);
    }
}
