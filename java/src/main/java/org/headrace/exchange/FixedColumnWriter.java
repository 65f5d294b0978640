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
                target.put(at, (byte) 0);
                break;
            case 2:
                target.putShort(at, (short) 0);
                break;
            case 4:
                target.putInt(at, 0);
                break;
            default:
                for (int i = 0; i < width; i += Long.BYTES) {
                    target.putLong(at + i, 0L);
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

        @Override
        boolean write(RowData row, int position) {
            if (row.isNullAt(position)) {
                return writeNull();
            }
            MemorySegment memory = target;
            int at = dataAt + count++ * width;
            switch (kind) {
                case BYTE:
                    memory.put(at, row.getByte(position));
                    break;
                case SHORT:
                    memory.putShort(at, row.getShort(position));
                    break;
                case INT:
                    memory.putInt(at, row.getInt(position));
                    break;
                case LONG:
                    memory.putLong(at, row.getLong(position));
                    break;
                case FLOAT:
                    memory.putInt(at, Float.floatToRawIntBits(row.getFloat(position)));
                    break;
                default:
                    memory.putLong(at, Double.doubleToRawLongBits(row.getDouble(position)));
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
                    segments[0].copyTo(binary.getOffset() + header, target, at, size * width);
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
            MemorySegment memory = target;
            int at = dataAt + count++ * width;
            switch (kind) {
                case BYTE:
                    memory.put(at, array.getByte(position));
                    break;
                case SHORT:
                    memory.putShort(at, array.getShort(position));
                    break;
                case INT:
                    memory.putInt(at, array.getInt(position));
                    break;
                case LONG:
                    memory.putLong(at, array.getLong(position));
                    break;
                case FLOAT:
                    memory.putInt(at, Float.floatToRawIntBits(array.getFloat(position)));
                    break;
                default:
                    memory.putLong(at, Double.doubleToRawLongBits(array.getDouble(position)));
            }
            return true;
        }
    }
}
