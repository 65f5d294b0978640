package org.headrace.exchange;

import org.apache.flink.table.data.DecimalData;
import org.apache.flink.table.data.TimestampData;
import org.apache.flink.table.types.logical.LogicalType;
import org.apache.flink.table.types.logical.LogicalTypeFamily;
import org.apache.flink.table.types.logical.LogicalTypeRoot;
import org.apache.flink.table.types.logical.RowType;
import org.apache.flink.table.types.logical.utils.LogicalTypeChecks;

import java.util.ArrayList;
import java.util.List;

/**
 * Compiles the straight-line code of a {@link RowPacker}. Flink's serializer asks a getter for each field,
 * which makes an object of each number, and then looks at its type to write it: two thirds of what a task
 * before a role did with rows of numbers (docs/adr/0102).
 */
final class RowPackerCompiler {

    private static final String NAME = "GeneratedRowPacker";
    private static final String PARAMETERS =
            "org.apache.flink.table.data.RowData row,"
                    + " org.apache.flink.table.data.writer.BinaryRowWriter target";

    private static final String SERIALIZERS = "org.apache.flink.table.runtime.typeutils";

    private RowPackerCompiler() {}

    static RowPacker compile(RowType type) {
        List<String> statements = new ArrayList<>();
        for (int position = 0; position < type.getFieldCount(); position++) {
            statements.add(statement(type, position));
        }
        return GeneratedClass.instantiate(
                NAME,
                RowPacker.class,
                "protected void packFields",
                PARAMETERS,
                "row, target",
                "",
                statements);
    }

    private static String statement(RowType type, int position) {
        String write = write(type, position);
        return GeneratedClass.code(
                "if (row.isNullAt(%1$d)) { target.%2$s); } else { target.write%3$s); }%n",
                position, writeNull(type.getTypeAt(position), position), write);
    }

    /** As Flink does, which keeps room for a NULL that would not lie among the fields. */
    private static String writeNull(LogicalType type, int position) {
        if (type.is(LogicalTypeRoot.DECIMAL)) {
            int digits = LogicalTypeChecks.getPrecision(type);
            if (!DecimalData.isCompact(digits)) {
                return GeneratedClass.code("writeDecimal(%d, null, %d", position, digits);
            }
        } else if (type.is(LogicalTypeFamily.TIMESTAMP)) {
            int precision = LogicalTypeChecks.getPrecision(type);
            if (!TimestampData.isCompact(precision)) {
                return GeneratedClass.code("writeTimestamp(%d, null, %d", position, precision);
            }
        }
        return GeneratedClass.code("setNullAt(%d", position);
    }

    /** The call of the writer behind "write", with its arguments. */
    private static String write(RowType row, int position) {
        LogicalType type = row.getTypeAt(position);
        switch (type.getTypeRoot()) {
            case BOOLEAN:
                return simple("Boolean", position);
            case TINYINT:
                return simple("Byte", position);
            case SMALLINT:
                return simple("Short", position);
            case INTEGER:
            case DATE:
            case TIME_WITHOUT_TIME_ZONE:
                return simple("Int", position);
            case BIGINT:
                return simple("Long", position);
            case FLOAT:
                return simple("Float", position);
            case DOUBLE:
                return simple("Double", position);
            case CHAR:
            case VARCHAR:
                return simple("String", position);
            case BINARY:
            case VARBINARY:
                return simple("Binary", position);
            case DECIMAL:
                int digits = LogicalTypeChecks.getPrecision(type);
                int scale = LogicalTypeChecks.getScale(type);
                return GeneratedClass.code(
                        "Decimal(%1$d, row.getDecimal(%1$d, %2$d, %3$d), %2$d", position, digits, scale);
            case TIMESTAMP_WITHOUT_TIME_ZONE:
            case TIMESTAMP_WITH_LOCAL_TIME_ZONE:
                int precision = LogicalTypeChecks.getPrecision(type);
                return GeneratedClass.code(
                        "Timestamp(%1$d, row.getTimestamp(%1$d, %2$d), %2$d", position, precision);
            case ARRAY:
                return nested("Array", "", position);
            case MAP:
            case MULTISET:
                return nested("Map", "", position);
            case ROW:
                return nested("Row", ", " + LogicalTypeChecks.getFieldCount(type), position);
            default:
                throw new UnsupportedTypeException(row.getFieldNames().get(position), type);
        }
    }

    private static String simple(String kind, int position) {
        return GeneratedClass.code("%1$s(%2$d, row.get%1$s(%2$d)", kind, position);
    }

    private static String nested(String kind, String more, int position) {
        return GeneratedClass.code(
                "%1$s(%2$d, row.get%1$s(%2$d%3$s), (%4$s.%1$sDataSerializer) serializers[%2$d]",
                kind, position, more, SERIALIZERS);
    }
}
