package org.headrace.operator;

import org.apache.flink.api.common.serialization.SerializerConfig;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.api.common.typeutils.TypeSerializer;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.runtime.typeutils.InternalTypeInfo;
import org.apache.flink.table.types.logical.RowType;

/**
 * The type of rows that are lent to the next operator of a chain, not copied for it.
 *
 * <p>Between chained operators Flink copies each row by its serializer, since it cannot know whether
 * the next one keeps or changes it (unless {@code pipeline.object-reuse} is set for the whole job). A role
 * does neither: a row is in the queue when its operator returns. See docs/adr/0075.
 */
final class BorrowedRowType extends TypeInformation<RowData> {

    private static final long serialVersionUID = 1L;

    private final InternalTypeInfo<RowData> rows;

    private BorrowedRowType(InternalTypeInfo<RowData> rows) {
        this.rows = rows;
    }

    static BorrowedRowType of(RowType type) {
        return new BorrowedRowType(InternalTypeInfo.of(type));
    }

    @Override
    public TypeSerializer<RowData> createSerializer(SerializerConfig config) {
        return new BorrowedRowSerializer(rows.createSerializer(config), rows.toRowType());
    }

    @Override
    public boolean isBasicType() {
        return rows.isBasicType();
    }

    @Override
    public boolean isTupleType() {
        return rows.isTupleType();
    }

    @Override
    public int getArity() {
        return rows.getArity();
    }

    @Override
    public int getTotalFields() {
        return rows.getTotalFields();
    }

    @Override
    public Class<RowData> getTypeClass() {
        return rows.getTypeClass();
    }

    @Override
    public boolean isKeyType() {
        return rows.isKeyType();
    }

    @Override
    public String toString() {
        return "borrowed " + rows;
    }

    @Override
    public boolean equals(Object other) {
        return other instanceof BorrowedRowType && rows.equals(((BorrowedRowType) other).rows);
    }

    @Override
    public int hashCode() {
        return rows.hashCode();
    }

    @Override
    public boolean canEqual(Object other) {
        return other instanceof BorrowedRowType;
    }
}
