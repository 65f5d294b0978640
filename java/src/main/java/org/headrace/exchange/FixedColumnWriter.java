package org.headrace.exchange;

import org.apache.flink.core.memory.MemorySegment;
import org.apache.flink.table.data.ArrayData;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.data.binary.BinaryArrayData;

import java.util.List;

/** A column whose elements all have the same number of whole bytes. */
abstract class FixedColumnWriter extends ColumnWriter {

    final int width;
    int dataAt;

    FixedColumnWriter(String path, int width) {
        super(path);
        this.width = width;
    }

    @Override
    final double fixedBytes() {
        return width + 0.125;
    }

    @Override
    final long place(long at) {
        long data = super.place(at);
        dataAt = (int) data;
        return align(data + capacity * width);
    }

    @Override
    final boolean writeNull() {
        markNull();
        int at = dataAt + count++ * width;
        switch (width) {
            case 1:
                bytes.put(at, (byte) 0);
                break;
            case 2:
                bytes.putShort(at, (short) 0);
                break;
            case 4:
                bytes.putInt(at, 0);
                break;
            default:
                for (int i = 0; i < width; i += Long.BYTES) {
                    bytes.putLong(at + i, 0L);
                }
        }
        return true;
    }

    @Override
    final int bufferCount() {
        return 2;
    }

    @Override
    final void collect(List<ColumnWriter> preorder) {
        preorder.add(this);
    }

    @Override
    final void describe(MessageMetadata.Builder metadata) {
        super.describe(metadata);
        metadata.buffer(dataAt, (long) count * width);
    }

    /** Integers, floats and DATE: Flink's bytes are Arrow's bytes. */
    static final class Numbers extends FixedColumnWriter {

        private final NumberKind kind;

        Numbers(String path, NumberKind kind) {
            super(path, kind.width());
            this.kind = kind;
        }

        NumberKind kind() {
            return kind;
        }

        @Override
        boolean write(RowData row, int position) {
            if (row.isNullAt(position)) {
                return writeNull();
            }
            int at = dataAt + count++ * width;
            switch (kind) {
                case BYTE:
                    bytes.put(at, row.getByte(position));
                    break;
                case SHORT:
                    bytes.putShort(at, row.getShort(position));
                    break;
                case INT:
                    bytes.putInt(at, row.getInt(position));
                    break;
                case LONG:
                    bytes.putLong(at, row.getLong(position));
                    break;
                case FLOAT:
                    bytes.putFloat(at, row.getFloat(position));
                    break;
                default:
                    bytes.putDouble(at, row.getDouble(position));
            }
            return true;
        }

        @Override
        boolean writeAll(ArrayData array, int size) {
            if (array instanceof BinaryArrayData) {
                BinaryArrayData binary = (BinaryArrayData) array;
                MemorySegment[] segments = binary.getSegments();
                if (segments.length == 1 && !binary.anyNull()) {
                    int header = BinaryArrayData.calculateHeaderInBytes(size);
                    int at = dataAt + count * width;
                    segments[0].copyTo(binary.getOffset() + header, target.segment(), at, size * width);
                    count += size;
                    return true;
                }
            }
            return super.writeAll(array, size);
        }

        @Override
        boolean write(ArrayData array, int position) {
            if (array.isNullAt(position)) {
                return writeNull();
            }
            int at = dataAt + count++ * width;
            switch (kind) {
                case BYTE:
                    bytes.put(at, array.getByte(position));
                    break;
                case SHORT:
                    bytes.putShort(at, array.getShort(position));
                    break;
                case INT:
                    bytes.putInt(at, array.getInt(position));
                    break;
                case LONG:
                    bytes.putLong(at, array.getLong(position));
                    break;
                case FLOAT:
                    bytes.putFloat(at, array.getFloat(position));
                    break;
                default:
                    bytes.putDouble(at, array.getDouble(position));
            }
            return true;
        }
    }
}
