package org.headrace.tfrecord;

import org.apache.flink.table.types.logical.ArrayType;
import org.apache.flink.table.types.logical.LogicalType;
import org.apache.flink.table.types.logical.LogicalTypeRoot;
import org.apache.flink.table.types.logical.RowType;

/** Which column types a tf.Example can hold, and in what. */
public final class ColumnTypes {

    private ColumnTypes() {}

    /**
     * Refuses columns that no feature can be read into.
     *
     * @throws UnsupportedColumnException for the first of them
     */
    public static void requireReadable(RowType type) {
        for (RowType.RowField field : type.getFields()) {
            if (kindOf(elementType(field.getType())) == null) {
                throw new UnsupportedColumnException(field);
            }
        }
    }

    /**
     * Refuses columns that no feature can hold.
     *
     * @param narrowsDoubles whether a DOUBLE may lose its lower bits
     * @throws UnsupportedColumnException for the first of them
     */
    public static void requireWritable(RowType type, boolean narrowsDoubles) {
        requireReadable(type);
        for (RowType.RowField field : type.getFields()) {
            if (elementType(field.getType()).is(LogicalTypeRoot.DOUBLE) && !narrowsDoubles) {
                throw new UnsupportedColumnException(field);
            }
        }
    }

    /** The type of the elements of an array, or the type itself. */
    static LogicalType elementType(LogicalType type) {
        return type.is(LogicalTypeRoot.ARRAY) ? ((ArrayType) type).getElementType() : type;
    }

    /** What holds values of the type; null if nothing does. */
    static FeatureKind kindOf(LogicalType element) {
        switch (element.getTypeRoot()) {
            case BOOLEAN:
            case TINYINT:
            case SMALLINT:
            case INTEGER:
            case BIGINT:
                return FeatureKind.INTEGERS;
            case FLOAT:
            case DOUBLE:
                return FeatureKind.FLOATS;
            case CHAR:
            case VARCHAR:
            case BINARY:
            case VARBINARY:
                return FeatureKind.BYTES;
            default:
                return null;
        }
    }
}
