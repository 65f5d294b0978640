package org.headrace.exchange;

import org.apache.flink.annotation.Internal;
import org.apache.flink.api.python.shaded.org.apache.arrow.vector.ipc.WriteChannel;
import org.apache.flink.api.python.shaded.org.apache.arrow.vector.ipc.message.MessageSerializer;
import org.apache.flink.api.python.shaded.org.apache.arrow.vector.types.DateUnit;
import org.apache.flink.api.python.shaded.org.apache.arrow.vector.types.FloatingPointPrecision;
import org.apache.flink.api.python.shaded.org.apache.arrow.vector.types.TimeUnit;
import org.apache.flink.api.python.shaded.org.apache.arrow.vector.types.pojo.ArrowType;
import org.apache.flink.api.python.shaded.org.apache.arrow.vector.types.pojo.Field;
import org.apache.flink.api.python.shaded.org.apache.arrow.vector.types.pojo.FieldType;
import org.apache.flink.api.python.shaded.org.apache.arrow.vector.types.pojo.Schema;
import org.apache.flink.table.types.logical.ArrayType;
import org.apache.flink.table.types.logical.DecimalType;
import org.apache.flink.table.types.logical.IntType;
import org.apache.flink.table.types.logical.LogicalType;
import org.apache.flink.table.types.logical.MapType;
import org.apache.flink.table.types.logical.MultisetType;
import org.apache.flink.table.types.logical.RowType;
import org.apache.flink.table.types.logical.utils.LogicalTypeChecks;

import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.channels.Channels;
import java.util.ArrayList;
import java.util.List;

/**
 * Maps a Flink row type to the Arrow schema of docs/exchange.md section 2.
 *
 * <p>Every field is nullable, except what Arrow's map type demands (entries and keys): NOT NULL is
 * checked where rows come back, see {@link BatchReader}.
 */
@Internal
public final class ArrowSchemas {

    /** Hidden last column: the row's Flink timestamp in milliseconds, NULL where it has none. */
    public static final String TIMESTAMP_COLUMN = "__timestamp__";

    private static final ArrowType INT64 = new ArrowType.Int(64, true);

    private ArrowSchemas() {}

    /**
     * Returns the Arrow schema of rows of {@code type}, the hidden timestamp column included.
     *
     * @throws UnsupportedTypeException if a column has a type that cannot travel
     */
    public static Schema toArrow(RowType type) {
        List<Field> fields = new ArrayList<>();
        for (RowType.RowField field : type.getFields()) {
            if (field.getName().equals(TIMESTAMP_COLUMN)) {
                throw new ExchangeException(
                        "The column name `" + TIMESTAMP_COLUMN + "` is reserved; rename it.");
            }
            fields.add(toField(field.getName(), field.getType(), field.getName()));
        }
        fields.add(new Field(TIMESTAMP_COLUMN, FieldType.nullable(INT64), null));
        return new Schema(fields);
    }

    /** Returns the Arrow IPC schema message of {@link #toArrow}; `pa.ipc.read_schema` reads it. */
    public static byte[] toIpcBytes(RowType type) {
        ByteArrayOutputStream bytes = new ByteArrayOutputStream();
        try {
            MessageSerializer.serialize(
                    new WriteChannel(Channels.newChannel(bytes)), toArrow(type));
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
        return bytes.toByteArray();
    }

    private static Field toField(String name, LogicalType type, String path) {
        switch (type.getTypeRoot()) {
            case ARRAY:
                LogicalType element = ((ArrayType) type).getElementType();
                return nested(
                        name,
                        new ArrowType.List(),
                        List.of(toField("item", element, path + ".item")));
            case ROW:
                List<Field> children = new ArrayList<>();
                for (RowType.RowField field : ((RowType) type).getFields()) {
                    String childPath = path + "." + field.getName();
                    children.add(toField(field.getName(), field.getType(), childPath));
                }
                return nested(name, new ArrowType.Struct(), children);
            case MAP:
            case MULTISET:
                Field key = toField("key", keyType(type), path + ".key");
                Field entries =
                        new Field(
                                "entries",
                                FieldType.notNullable(new ArrowType.Struct()),
                                List.of(
                                        new Field(
                                                "key",
                                                FieldType.notNullable(key.getType()),
                                                key.getChildren()),
                                        toField("value", valueType(type), path + ".value")));
                return nested(name, new ArrowType.Map(false), List.of(entries));
            default:
                return nested(name, scalar(type, path), null);
        }
    }

    private static Field nested(String name, ArrowType type, List<Field> children) {
        return new Field(name, FieldType.nullable(type), children);
    }

    /** Key type of a MAP; the element type of a MULTISET. */
    static LogicalType keyType(LogicalType type) {
        return type instanceof MapType
                ? ((MapType) type).getKeyType()
                : ((MultisetType) type).getElementType();
    }

    /** Value type of a MAP; the count of a MULTISET. */
    static LogicalType valueType(LogicalType type) {
        return type instanceof MapType ? ((MapType) type).getValueType() : new IntType(false);
    }

    private static ArrowType scalar(LogicalType type, String path) {
        switch (type.getTypeRoot()) {
            case BOOLEAN:
                return new ArrowType.Bool();
            case TINYINT:
                return new ArrowType.Int(8, true);
            case SMALLINT:
                return new ArrowType.Int(16, true);
            case INTEGER:
                return new ArrowType.Int(32, true);
            case BIGINT:
                return INT64;
            case FLOAT:
                return new ArrowType.FloatingPoint(FloatingPointPrecision.SINGLE);
            case DOUBLE:
                return new ArrowType.FloatingPoint(FloatingPointPrecision.DOUBLE);
            case DECIMAL:
                DecimalType decimal = (DecimalType) type;
                return new ArrowType.Decimal(decimal.getPrecision(), decimal.getScale(), 128);
            case CHAR:
            case VARCHAR:
                return new ArrowType.Utf8();
            case BINARY:
            case VARBINARY:
                return new ArrowType.Binary();
            case DATE:
                return new ArrowType.Date(DateUnit.DAY);
            case TIME_WITHOUT_TIME_ZONE:
                return new ArrowType.Time(unit(type), Byte.SIZE * timeWidth(type));
            case TIMESTAMP_WITHOUT_TIME_ZONE:
                return new ArrowType.Timestamp(unit(type), null);
            case TIMESTAMP_WITH_LOCAL_TIME_ZONE:
                return new ArrowType.Timestamp(unit(type), "UTC");
            default:
                throw new UnsupportedTypeException(path, type);
        }
    }

    /** Bytes of a TIME of this precision. */
    static int timeWidth(LogicalType type) {
        return LogicalTypeChecks.getPrecision(type) <= 3 ? Integer.BYTES : Long.BYTES;
    }

    /** Unit in which a TIME or TIMESTAMP type of this precision travels. */
    static TimeUnit unit(LogicalType type) {
        int precision = LogicalTypeChecks.getPrecision(type);
        if (precision == 0) {
            return TimeUnit.SECOND;
        }
        if (precision <= 3) {
            return TimeUnit.MILLISECOND;
        }
        return precision <= 6 ? TimeUnit.MICROSECOND : TimeUnit.NANOSECOND;
    }
}
