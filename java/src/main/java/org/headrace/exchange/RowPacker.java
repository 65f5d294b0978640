package org.headrace.exchange;

import org.apache.flink.annotation.Internal;
import org.apache.flink.api.common.typeutils.TypeSerializer;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.data.binary.BinaryRowData;
import org.apache.flink.table.data.writer.BinaryRowWriter;
import org.apache.flink.table.runtime.typeutils.InternalSerializers;
import org.apache.flink.table.types.logical.RowType;

/**
 * Puts rows into Flink's binary form, in which they travel between tasks, without an object for each
 * number. {@link RowPackerCompiler} makes a subclass for each packer.
 *
 * <p>The form is that of Flink's {@code RowDataSerializer}, byte for byte.
 *
 * <p>Thread model: one thread. Public and with protected members for generated code alone.
 */
@Internal
public abstract class RowPacker {

    /** Of the fields; Flink's writer asks for those of arrays, maps and rows. */
    protected TypeSerializer<?>[] serializers;

    private BinaryRowData packed;
    private BinaryRowWriter writer;

    /**
     * Returns a packer of rows of {@code type}.
     *
     * @throws UnsupportedTypeException if a field does not travel.
     */
    public static RowPacker of(RowType type) {
        RowPacker packer = RowPackerCompiler.compile(type);
        packer.serializers =
                type.getChildren().stream()
                        .map(InternalSerializers::create)
                        .toArray(TypeSerializer<?>[]::new);
        packer.packed = new BinaryRowData(type.getFieldCount());
        packer.writer = new BinaryRowWriter(packer.packed);
        return packer;
    }

    /** Returns {@code row} in binary form, until the next call. */
    public final BinaryRowData pack(RowData row) {
        writer.reset();
        writer.writeRowKind(row.getRowKind());
        packFields(row, writer);
        writer.complete();
        return packed;
    }

    /** Writes every field of {@code row}, in order. */
    protected abstract void packFields(RowData row, BinaryRowWriter target);
}
