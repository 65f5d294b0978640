package org.headrace.exchange;

import org.apache.flink.table.types.logical.ArrayType;
import org.apache.flink.table.types.logical.DecimalType;
import org.apache.flink.table.types.logical.LogicalType;
import org.apache.flink.table.types.logical.RowType;

/** Builds the tree of column readers for a type; the types are those of {@link ArrowSchemas}. */
final class ColumnReaders {

    private ColumnReaders() {}

    static ColumnReader create(String path, LogicalType type) {
        NumberKind kind = NumberKind.of(type);
        if (kind != null) {
            return new NumberColumnReader(path, kind);
        }
        switch (type.getTypeRoot()) {
            case BOOLEAN:
                return new BooleanColumnReader(path);
            case DECIMAL:
                return new DecimalColumnReader(path, (DecimalType) type);
            case CHAR:
            case VARCHAR:
                return new BytesColumnReader(path, true);
            case BINARY:
            case VARBINARY:
                return new BytesColumnReader(path, false);
            case TIME_WITHOUT_TIME_ZONE:
                return new TemporalColumnReader.Times(path, type);
            case TIMESTAMP_WITHOUT_TIME_ZONE:
            case TIMESTAMP_WITH_LOCAL_TIME_ZONE:
                return new TemporalColumnReader.Timestamps(path, type);
            case ARRAY:
                LogicalType element = ((ArrayType) type).getElementType();
                return new NestedColumnReader.Arrays(path, type, create(path + ".item", element));
            case MAP:
            case MULTISET:
                return new NestedColumnReader.Maps(
                        path,
                        type,
                        new NestedColumnReader.Rows(
                                path,
                                null,
                                create(path + ".key", ArrowSchemas.keyType(type)),
                                create(path + ".value", ArrowSchemas.valueType(type))));
            case ROW:
                return new NestedColumnReader.Rows(path, type, fields(path + ".", (RowType) type));
            default:
                throw new UnsupportedTypeException(path, type);
        }
    }

    /** One reader per field of {@code type}. */
    static ColumnReader[] fields(String prefix, RowType type) {
        return type.getFields().stream()
                .map(field -> create(prefix + field.getName(), field.getType()))
                .toArray(ColumnReader[]::new);
    }
}
