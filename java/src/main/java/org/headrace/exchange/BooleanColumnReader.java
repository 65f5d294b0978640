package org.headrace.exchange;

import org.apache.flink.table.data.writer.BinaryRowWriter;

/** BOOLEAN: one bit per element. */
final class BooleanColumnReader extends ColumnReader {

    private int dataAt;

    BooleanColumnReader(String path) {
        super(path);
    }

    @Override
    void load(Message message, int least) {
        super.load(message, least);
        dataAt = (int) message.nextBuffer((length + 7L) >>> 3, path);
    }

    private boolean value(int index) {
        return (source.get(dataAt + (index >>> 3)) & (1 << (index & 7))) != 0;
    }

    @Override
    void read(int index, BinaryRowWriter row, int position) {
        row.writeBoolean(position, value(index));
    }

    @Override
    Object get(int index) {
        return value(index);
    }

    @Override
    int bufferCount() {
        return 2;
    }
}
