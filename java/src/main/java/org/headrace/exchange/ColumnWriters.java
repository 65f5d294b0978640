package org.headrace.exchange;

import org.apache.flink.table.types.logical.ArrayType;
import org.apache.flink.table.types.logical.DecimalType;
import org.apache.flink.table.types.logical.LogicalType;
import org.apache.flink.table.types.logical.RowType;

/** Builds the tree of column writers for a type; the types are those of {@link ArrowSchemas}. */
final class ColumnWriters {

    private ColumnWriters() {}

    static ColumnWriter create(String path, LogicalType type) {
        NumberKind kind = NumberKind.of(type);
        if (kind != null) {
            return new FixedColumnWriter.Numbers(path, kind);
        }
        switch (type.getTypeRoot()) {
            case BOOLEAN:
                return new BooleanColumnWriter(path);
            case DECIMAL:
                return new DecimalColumnWriter(path, (DecimalType) type);
            case CHAR:
            case VARCHAR:
                return new BytesColumnWriter(path, true);
            case BINARY:
            case VARBINARY:
                return new BytesColumnWriter(path, false);
            case TIME_WITHOUT_TIME_ZONE:
                return new TemporalColumnWriter.Times(path, type);
            case TIMESTAMP_WITHOUT_TIME_ZONE:
            case TIMESTAMP_WITH_LOCAL_TIME_ZONE:
                return new TemporalColumnWriter.Timestamps(path, type);
            case ARRAY:
                LogicalType element = ((ArrayType) type).getElementType();
                return new ListColumnWriter.Arrays(path, create(path + ".item", element));
            case MAP:
            case MULTISET:
                return new ListColumnWriter.Maps(
                        path,
                        new StructColumnWriter.Entries(
                                path,
                                create(path + ".key", ArrowSchemas.keyType(type)),
                                create(path + ".value", ArrowSchemas.valueType(type))));
            case ROW:
                return new StructColumnWriter.Rows(path, fields(path + ".", (RowType) type));
            default:
                throw new UnsupportedTypeException(path, type);
        }
    }

    /** One writer per field of {@code type}. */
    static ColumnWriter[] fields(String prefix, RowType type) {
        return type.getFields().stream()
                .map(field -> create(prefix + field.getName(), field.getType()))
                .toArray(ColumnWriter[]::new);
    }
}
