package org.headrace.operator;

import org.apache.flink.api.common.typeutils.TypeSerializer;
import org.apache.flink.api.common.typeutils.TypeSerializerSnapshot;
import org.apache.flink.core.memory.DataInputView;
import org.apache.flink.core.memory.DataOutputView;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.data.binary.BinaryRowData;
import org.apache.flink.table.types.logical.RowType;

import org.headrace.exchange.RowPacker;

import java.io.IOException;

/**
 * The serializer of {@link BorrowedRowType}: another one's bytes, made faster, and a copy that is the row
 * itself.
 */
final class BorrowedRowSerializer extends TypeSerializer<RowData> {

    private static final long serialVersionUID = 1L;

    private final TypeSerializer<RowData> rows;
    private final RowType type;

    /** Compiled by the first row that is to be packed: copies of a serializer that see none are many. */
    private transient RowPacker packer;

    /**
     * @param rows Flink's serializer.
     * @param type Of its rows.
     */
    BorrowedRowSerializer(TypeSerializer<RowData> rows, RowType type) {
        this.rows = rows;
        this.type = type;
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
        return new BorrowedRowSerializer(rows.duplicate(), type);
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
        rows.serialize(row instanceof BinaryRowData ? row : pack(row), target);
    }

    private RowData pack(RowData row) {
        if (packer == null) {
            packer = RowPacker.of(type);
        }
        return packer.pack(row);
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
