package org.headrace.exchange;

import org.apache.flink.table.data.ArrayData;
import org.apache.flink.table.data.DecimalData;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.types.logical.DecimalType;

/** DECIMAL(p, s) as decimal128: the unscaled value, 16 bytes, two's complement. */
final class DecimalColumnWriter extends FixedColumnWriter {

    static final int WIDTH = 16;

    private final int precision;
    private final int scale;

    DecimalColumnWriter(String path, DecimalType type) {
        super(path, WIDTH);
        precision = type.getPrecision();
        scale = type.getScale();
    }

    @Override
    boolean write(RowData row, int position) {
        return row.isNullAt(position)
                ? writeNull()
                : append(row.getDecimal(position, precision, scale));
    }

    @Override
    boolean write(ArrayData array, int position) {
        return array.isNullAt(position)
                ? writeNull()
                : append(array.getDecimal(position, precision, scale));
    }

    private boolean append(DecimalData value) {
        int at = dataAt + count * WIDTH;
        if (value.isCompact()) {
            long unscaled = value.toUnscaledLong();
            bytes.putLong(at, unscaled);
            bytes.putLong(at + Long.BYTES, unscaled >> 63);
        } else {
            byte[] bigEndian = value.toUnscaledBytes();
            byte sign = (byte) (bigEndian[0] >> 7);
            for (int i = 0; i < WIDTH; i++) {
                int from = bigEndian.length - 1 - i;
                bytes.put(at + i, from >= 0 ? bigEndian[from] : sign);
            }
        }
        count++;
        return true;
    }
}
