package org.headrace.exchange;

import org.apache.flink.table.data.DecimalData;
import org.apache.flink.table.data.writer.BinaryRowWriter;
import org.apache.flink.table.types.logical.DecimalType;

import java.math.BigDecimal;
import java.math.BigInteger;

/** DECIMAL(p, s) from decimal128. */
final class DecimalColumnReader extends ColumnReader {

    private static final int WIDTH = 16;

    private final int precision;
    private final int scale;
    private int dataAt;

    DecimalColumnReader(String path, DecimalType type) {
        super(path);
        precision = type.getPrecision();
        scale = type.getScale();
    }

    @Override
    void load(Message message, int least) {
        super.load(message, least);
        dataAt = (int) message.nextBuffer((long) length * WIDTH, path);
    }

    @Override
    void read(int index, BinaryRowWriter row, int position) {
        row.writeDecimal(position, get(index), precision);
    }

    @Override
    void readNull(BinaryRowWriter row, int position) {
        if (DecimalData.isCompact(precision)) {
            row.setNullAt(position);
        } else {
            row.writeDecimal(position, null, precision);
        }
    }

    @Override
    DecimalData get(int index) {
        int at = dataAt + index * WIDTH;
        long low = source.getLong(at);
        long high = source.getLong(at + Long.BYTES);
        boolean isLong = high == low >> 63;
        DecimalData value = null;
        if (DecimalData.isCompact(precision)) {
            value = isLong ? DecimalData.fromUnscaledLong(low, precision, scale) : null;
        } else {
            value = DecimalData.fromBigDecimal(toBigDecimal(low, high), precision, scale);
        }
        MessageMetadata.require(
                value != null, "column `%s` holds a number of over %s digits", path, precision);
        return value;
    }

    private BigDecimal toBigDecimal(long low, long high) {
        byte[] bigEndian = new byte[WIDTH];
        for (int i = 0; i < Long.BYTES; i++) {
            bigEndian[WIDTH - 1 - i] = (byte) (low >> (Byte.SIZE * i));
            bigEndian[Long.BYTES - 1 - i] = (byte) (high >> (Byte.SIZE * i));
        }
        return new BigDecimal(new BigInteger(bigEndian), scale);
    }

    @Override
    int bufferCount() {
        return 2;
    }
}
