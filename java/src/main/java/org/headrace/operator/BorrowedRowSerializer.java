package org.headrace.operator;

import org.apache.flink.api.common.typeutils.TypeSerializer;
import org.apache.flink.api.common.typeutils.TypeSerializerSnapshot;
import org.apache.flink.core.memory.DataInputView;
import org.apache.flink.core.memory.DataOutputView;
import org.apache.flink.table.data.RowData;

import java.io.IOException;

/** The serializer of {@link BorrowedRowType}: another one's bytes, and a copy that is the row itself. */
final class BorrowedRowSerializer extends TypeSerializer<RowData> {

    private static final long serialVersionUID = 1L;

    private final TypeSerializer<RowData> rows;

    BorrowedRowSerializer(TypeSerializer<RowData> rows) {
        this.rows = rows;
    }

    @Override
    public RowData copy(RowData row) {
        return row;
    }

    @Override
    public RowData copy(RowData row, RowData reuse) {
        return row;
    }

    @Override
    public boolean isImmutableType() {
        return rows.isImmutableType();
    }

    @Override
    public TypeSerializer<RowData> duplicate() {
        return new BorrowedRowSerializer(rows.duplicate());
    }

    @Override
    public RowData createInstance() {
        return rows.createInstance();
    }

    @Override
    public int getLength() {
        return rows.getLength();
    }

    @Override
    public void serialize(RowData row, DataOutputView target) throws IOException {
        rows.serialize(row, target);
    }

    @Override
    public RowData deserialize(DataInputView source) throws IOException {
        return rows.deserialize(source);
    }

    @Override
    public RowData deserialize(RowData reuse, DataInputView source) throws IOException {
        return rows.deserialize(reuse, source);
    }

    @Override
    public void copy(DataInputView source, DataOutputView target) throws IOException {
        rows.copy(source, target);
    }

    @Override
    public boolean equals(Object other) {
        return other instanceof BorrowedRowSerializer && rows.equals(((BorrowedRowSerializer) other).rows);
    }

    @Override
    public int hashCode() {
        return rows.hashCode();
    }

    @Override
    public TypeSerializerSnapshot<RowData> snapshotConfiguration() {
        return rows.snapshotConfiguration(); // never restored: rows of an edge are no state
    }
}
