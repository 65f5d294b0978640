package org.headrace.tfrecord;

import org.apache.flink.annotation.Internal;
import org.apache.flink.table.api.ValidationException;
import org.apache.flink.table.types.logical.LogicalType;
import org.apache.flink.table.types.logical.RowType;

/** A column has a type that a tf.Example cannot hold; raised when the table is planned. */
@Internal
public final class UnsupportedColumnException extends ValidationException {

    private static final long serialVersionUID = 1L;

    UnsupportedColumnException(RowType.RowField field) {
        super(
                String.format(
                        "Column `%s` has the type %s. A tf.Example holds 64-bit integers, 32-bit floats and bytes,"
                                + " and lists of them. %s",
                        field.getName(),
                        field.getType().asSummaryString(),
                        advice(field.getName(), field.getType())));
    }

    private static String advice(String name, LogicalType type) {
        switch (type.getTypeRoot()) {
            case DOUBLE:
                return String.format(
                        "CAST(`%s` AS FLOAT) in the query, or set 'tfrecord.narrow-doubles' = 'true' to let all"
                                + " columns lose what a FLOAT cannot hold.",
                        name);
            case DECIMAL:
                return String.format(
                        "CAST(`%s` AS FLOAT), or AS STRING to keep every digit, and declare the column so.", name);
            case DATE:
            case TIME_WITHOUT_TIME_ZONE:
            case TIMESTAMP_WITHOUT_TIME_ZONE:
            case TIMESTAMP_WITH_TIME_ZONE:
            case TIMESTAMP_WITH_LOCAL_TIME_ZONE:
                return String.format(
                        "CAST(`%1$s` AS STRING), or take a number, such as the seconds EXTRACT(EPOCH FROM `%1$s`) of"
                                + " a TIMESTAMP, and declare the column so.",
                        name);
            case ROW:
            case STRUCTURED_TYPE:
                return "Select its fields as columns of their own.";
            case MAP:
                return String.format("Select its values as columns of their own, such as `%s`['key'].", name);
            case ARRAY:
                boolean isOfDoubles = ColumnTypes.kindOf(ColumnTypes.elementType(type)) != null;
                return isOfDoubles
                        ? String.format(
                                "CAST(`%s` AS ARRAY<FLOAT>) in the query, or set 'tfrecord.narrow-doubles' ="
                                        + " 'true' to let all columns lose what a FLOAT cannot hold.",
                                name)
                        : "Make it an array of numbers, BOOLEAN, STRING or BYTES.";
            default:
                return "CAST it to a number, STRING or BYTES, or leave it out.";
        }
    }
}
