package org.headrace.exchange;

import org.apache.flink.api.python.shaded.org.apache.arrow.vector.types.TimeUnit;
import org.apache.flink.table.data.ArrayData;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.data.TimestampData;
import org.apache.flink.table.types.logical.LogicalType;
import org.apache.flink.table.types.logical.utils.LogicalTypeChecks;

/** TIME, TIMESTAMP and TIMESTAMP_LTZ in the unit that their precision needs. */
abstract class TemporalColumnWriter extends FixedColumnWriter {

    final TimeUnit unit;

    TemporalColumnWriter(String path, int width, LogicalType type) {
        super(path, width);
        unit = ArrowSchemas.unit(type);
    }

    /** TIME: Flink holds milliseconds of the day, whatever the precision. */
    static final class Times extends TemporalColumnWriter {

        Times(String path, LogicalType type) {
            super(path, ArrowSchemas.timeWidth(type), type);
        }

        @Override
        boolean write(RowData row, int position) {
            return row.isNullAt(position) ? writeNull() : append(row.getInt(position));
        }

        @Override
        boolean write(ArrayData array, int position) {
            return array.isNullAt(position) ? writeNull() : append(array.getInt(position));
        }

        private boolean append(int millisOfDay) {
            int at = dataAt + count++ * width;
            switch (unit) {
                case SECOND:
                    bytes.putInt(at, millisOfDay / 1000);
                    break;
                case MILLISECOND:
                    bytes.putInt(at, millisOfDay);
                    break;
                case MICROSECOND:
                    bytes.putLong(at, millisOfDay * 1_000L);
                    break;
                default:
                    bytes.putLong(at, millisOfDay * 1_000_000L);
            }
            return true;
        }
    }

    /** TIMESTAMP and TIMESTAMP_LTZ since the epoch. */
    static final class Timestamps extends TemporalColumnWriter {

        private final int precision;

        Timestamps(String path, LogicalType type) {
            super(path, Long.BYTES, type);
            precision = LogicalTypeChecks.getPrecision(type);
        }

        @Override
        boolean write(RowData row, int position) {
            return row.isNullAt(position)
                    ? writeNull()
                    : append(row.getTimestamp(position, precision));
        }

        @Override
        boolean write(ArrayData array, int position) {
            return array.isNullAt(position)
                    ? writeNull()
                    : append(array.getTimestamp(position, precision));
        }

        private boolean append(TimestampData value) {
            bytes.putLong(dataAt + count * Long.BYTES, toUnits(value));
            count++;
            return true;
        }

        private long toUnits(TimestampData value) {
            long millis = value.getMillisecond();
            int nanos = value.getNanoOfMillisecond();
            switch (unit) {
                case SECOND:
                    return Math.floorDiv(millis, 1000L);
                case MILLISECOND:
                    return millis;
                case MICROSECOND:
                    return scale(value, millis, 1_000L, nanos / 1_000);
                default:
                    return scale(value, millis, 1_000_000L, nanos);
            }
        }

        private long scale(TimestampData value, long millis, long factor, long rest) {
            try {
                if (millis < 0) { // so that the earliest value does not overflow half way
                    return Math.addExact(Math.multiplyExact(millis + 1, factor), rest - factor);
                }
                return Math.addExact(Math.multiplyExact(millis, factor), rest);
            } catch (ArithmeticException e) {
                throw new ExchangeException(
                        String.format(
                                "Column `%s` holds %s, which does not fit 64 bits of"
                                        + " %ss since 1970 (1677-09-21 to 2262-04-11 for"
                                        + " nanoseconds). Cast the column to TIMESTAMP(6) or less.",
                                path, value, unit.name().toLowerCase(java.util.Locale.ROOT)),
                        e);
            }
        }
    }
}
