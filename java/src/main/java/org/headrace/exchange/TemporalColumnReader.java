package org.headrace.exchange;

import org.apache.flink.api.python.shaded.org.apache.arrow.vector.types.TimeUnit;
import org.apache.flink.table.data.TimestampData;
import org.apache.flink.table.data.writer.BinaryRowWriter;
import org.apache.flink.table.types.logical.LogicalType;
import org.apache.flink.table.types.logical.utils.LogicalTypeChecks;

/** TIME, TIMESTAMP and TIMESTAMP_LTZ from the unit that their precision needs. */
abstract class TemporalColumnReader extends ColumnReader {

    final TimeUnit unit;
    final int precision;
    private final int width;
    private int dataAt;

    TemporalColumnReader(String path, LogicalType type, int width) {
        super(path);
        unit = ArrowSchemas.unit(type);
        precision = LogicalTypeChecks.getPrecision(type);
        this.width = width;
    }

    @Override
    final void load(Message message, int least) {
        super.load(message, least);
        dataAt = (int) message.nextBuffer((long) length * width, path);
    }

    final long units(int index) {
        int at = dataAt + index * width;
        return width == Integer.BYTES ? source.getInt(at) : source.getLong(at);
    }

    @Override
    final int bufferCount() {
        return 2;
    }

    /** TIME: Flink holds milliseconds of the day; what is finer is cut off. */
    static final class Times extends TemporalColumnReader {

        Times(String path, LogicalType type) {
            super(path, type, ArrowSchemas.timeWidth(type));
        }

        private int millisOfDay(int index) {
            long units = units(index);
            switch (unit) {
                case SECOND:
                    return (int) (units * 1000);
                case MILLISECOND:
                    return (int) units;
                case MICROSECOND:
                    return (int) Math.floorDiv(units, 1_000L);
                default:
                    return (int) Math.floorDiv(units, 1_000_000L);
            }
        }

        @Override
        void read(int index, BinaryRowWriter row, int position) {
            row.writeInt(position, millisOfDay(index));
        }

        @Override
        Object get(int index) {
            return millisOfDay(index);
        }
    }

    /** TIMESTAMP and TIMESTAMP_LTZ. */
    static final class Timestamps extends TemporalColumnReader {

        Timestamps(String path, LogicalType type) {
            super(path, type, Long.BYTES);
        }

        @Override
        void read(int index, BinaryRowWriter row, int position) {
            row.writeTimestamp(position, get(index), precision);
        }

        @Override
        void readNull(BinaryRowWriter row, int position) {
            if (TimestampData.isCompact(precision)) {
                row.setNullAt(position);
            } else {
                row.writeTimestamp(position, null, precision);
            }
        }

        @Override
        TimestampData get(int index) {
            long units = units(index);
            switch (unit) {
                case SECOND:
                    MessageMetadata.require(
                            Math.abs(units / 1000) < Long.MAX_VALUE / 1_000_000,
                            "column `%s` holds %s seconds since 1970",
                            path,
                            units);
                    return TimestampData.fromEpochMillis(units * 1000);
                case MILLISECOND:
                    return TimestampData.fromEpochMillis(units);
                case MICROSECOND:
                    return split(units, 1_000, 1_000);
                default:
                    return split(units, 1_000_000, 1);
            }
        }

        private static TimestampData split(long units, int unitsPerMilli, int nanosPerUnit) {
            return TimestampData.fromEpochMillis(
                    Math.floorDiv(units, (long) unitsPerMilli),
                    Math.floorMod(units, unitsPerMilli) * nanosPerUnit);
        }
    }
}
