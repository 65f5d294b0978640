package org.headrace.exchange;

import org.apache.flink.core.memory.MemorySegment;
import org.apache.flink.core.memory.MemorySegmentFactory;
import org.apache.flink.table.data.ArrayData;
import org.apache.flink.table.data.binary.BinaryArrayData;
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

    /** The elements from {@code start} on, none of which is NULL, by one copy. */
    ArrayData array(int start, int size) {
        int header = BinaryArrayData.calculateHeaderInBytes(size);
        byte[] bytes = new byte[align(header + size * kind.width())];
        MemorySegment memory = MemorySegmentFactory.wrap(bytes);
        memory.putInt(0, size);
        source.get(dataAt + start * kind.width(), bytes, header, size * kind.width());
        BinaryArrayData array = new BinaryArrayData();
        array.pointTo(memory, 0, bytes.length);
        return array;
    }

    private static int align(int bytes) {
        return (bytes + Long.BYTES - 1) & -Long.BYTES;
    }

    @Override
    int bufferCount() {
        return 2;
    }
}
