package org.headrace.exchange;

import org.apache.flink.table.data.ArrayData;
import org.apache.flink.table.data.GenericArrayData;
import org.apache.flink.table.data.writer.BinaryRowWriter;

/** Integers, floats and DATE: Arrow's bytes are Flink's bytes. */
final class NumberColumnReader extends ColumnReader {

    private final NumberKind kind;
    private int dataAt;

    NumberColumnReader(String path, NumberKind kind) {
        super(path);
        this.kind = kind;
    }

    @Override
    void load(Message message, int least) {
        super.load(message, least);
        dataAt = (int) message.nextBuffer((long) length * kind.width(), path);
    }

    /** The non-NULL element of a column of kind LONG. */
    long value(int index) {
        return source.getLong(dataAt + index * Long.BYTES);
    }

    @Override
    void read(int index, BinaryRowWriter row, int position) {
        int at = dataAt + index * kind.width();
        switch (kind) {
            case BYTE:
                row.writeByte(position, source.get(at));
                break;
            case SHORT:
                row.writeShort(position, source.getShort(at));
                break;
            case INT:
            case FLOAT:
                row.writeInt(position, source.getInt(at));
                break;
            default:
                row.writeLong(position, source.getLong(at));
        }
    }

    @Override
    Object get(int index) {
        int at = dataAt + index * kind.width();
        switch (kind) {
            case BYTE:
                return source.get(at);
            case SHORT:
                return source.getShort(at);
            case INT:
                return source.getInt(at);
            case LONG:
                return source.getLong(at);
            case FLOAT:
                return source.getFloat(at);
            default:
                return source.getDouble(at);
        }
    }

    /** The elements from {@code start} on, none of which is NULL, without boxing. */
    ArrayData array(int start, int size) {
        int at = dataAt + start * kind.width();
        switch (kind) {
            case BYTE:
                byte[] bytes = new byte[size];
                source.get(at, bytes, 0, size);
                return new GenericArrayData(bytes);
            case SHORT:
                short[] shorts = new short[size];
                for (int i = 0; i < size; i++) {
                    shorts[i] = source.getShort(at + i * Short.BYTES);
                }
                return new GenericArrayData(shorts);
            case INT:
                int[] ints = new int[size];
                for (int i = 0; i < size; i++) {
                    ints[i] = source.getInt(at + i * Integer.BYTES);
                }
                return new GenericArrayData(ints);
            case LONG:
                long[] longs = new long[size];
                for (int i = 0; i < size; i++) {
                    longs[i] = source.getLong(at + i * Long.BYTES);
                }
                return new GenericArrayData(longs);
            case FLOAT:
                float[] floats = new float[size];
                for (int i = 0; i < size; i++) {
                    floats[i] = source.getFloat(at + i * Float.BYTES);
                }
                return new GenericArrayData(floats);
            default:
                double[] doubles = new double[size];
                for (int i = 0; i < size; i++) {
                    doubles[i] = source.getDouble(at + i * Double.BYTES);
                }
                return new GenericArrayData(doubles);
        }
    }

    @Override
    int bufferCount() {
        return 2;
    }
}
