package org.headrace.exchange;

import org.apache.flink.table.data.binary.BinaryStringData;
import org.apache.flink.table.data.writer.BinaryRowWriter;

/** CHAR, VARCHAR (utf8) and BINARY, VARBINARY (binary). */
final class BytesColumnReader extends ColumnReader {

    private final boolean isText;
    private int offsetsAt;
    private int dataAt;
    private long dataBytes;

    BytesColumnReader(String path, boolean isText) {
        super(path);
        this.isText = isText;
    }

    @Override
    void load(Message message, int least) {
        super.load(message, least);
        offsetsAt = (int) message.nextBuffer(length == 0 ? 0 : (length + 1L) * 4, path);
        dataAt = (int) message.nextBuffer(0, path);
        dataBytes = message.lastBufferBytes();
    }

    private byte[] bytes(int index) {
        int start = source.getInt(offsetsAt + index * Integer.BYTES);
        int end = source.getInt(offsetsAt + (index + 1) * Integer.BYTES);
        MessageMetadata.require(
                start >= 0 && start <= end && end <= dataBytes,
                "column `%s`: element %s is at bytes %s to %s of %s",
                path,
                index,
                start,
                end,
                dataBytes);
        byte[] bytes = new byte[end - start];
        source.get(dataAt + start, bytes, 0, bytes.length);
        return bytes;
    }

    @Override
    void read(int index, BinaryRowWriter row, int position) {
        byte[] bytes = bytes(index);
        if (isText) {
            row.writeString(position, BinaryStringData.fromBytes(bytes));
        } else {
            row.writeBinary(position, bytes);
        }
    }

    @Override
    Object get(int index) {
        byte[] bytes = bytes(index);
        return isText ? BinaryStringData.fromBytes(bytes) : bytes;
    }

    @Override
    int bufferCount() {
        return 3;
    }
}
