package org.headrace.tfrecord;

import org.apache.flink.table.data.ArrayData;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.types.logical.LogicalType;
import org.apache.flink.table.types.logical.LogicalTypeRoot;

import java.nio.charset.StandardCharsets;

/** Writes one column of a row as an entry of the map of features. Not safe for several threads. */
final class ColumnWriter {

    private static final int ENTRY = 1; // of Features
    private static final int KEY = 1;
    private static final int VALUE = 2;
    private static final int VALUES = 1; // of BytesList, FloatList and Int64List

    private final String name;
    private final byte[] utf8Name;
    private final int position;
    private final FeatureKind kind;
    private final boolean isArray;
    private final LogicalTypeRoot root;

    /** @param type one that {@link ColumnTypes#requireWritable} has let pass */
    ColumnWriter(String name, int position, LogicalType type) {
        this.name = name;
        this.utf8Name = name.getBytes(StandardCharsets.UTF_8);
        this.position = position;
        LogicalType element = ColumnTypes.elementType(type);
        this.kind = ColumnTypes.kindOf(element);
        this.isArray = type.is(LogicalTypeRoot.ARRAY);
        this.root = element.getTypeRoot();
    }

    /** Writes the feature before what is there; nothing for NULL. */
    void write(RowData row, BackwardBuffer out) throws TfRecordException {
        if (row.isNullAt(position)) {
            return;
        }
        int before = out.size();
        if (isArray) {
            writeArray(row.getArray(position), out);
        } else {
            writeValue(row, out);
        }
        if (kind != FeatureKind.BYTES && out.size() > before) {
            out.wrap(VALUES, before); // packed
        }
        out.wrap(kind.field(), before);
        out.wrap(VALUE, before);
        int beforeKey = out.size();
        out.prependBytes(utf8Name);
        out.wrap(KEY, beforeKey);
        out.wrap(ENTRY, before);
    }

    private void writeValue(RowData row, BackwardBuffer out) throws TfRecordException {
        switch (root) {
            case BOOLEAN:
                out.prependVarint(row.getBoolean(position) ? 1 : 0);
                break;
            case TINYINT:
                out.prependVarint(row.getByte(position));
                break;
            case SMALLINT:
                out.prependVarint(row.getShort(position));
                break;
            case INTEGER:
                out.prependVarint(row.getInt(position));
                break;
            case BIGINT:
                out.prependVarint(row.getLong(position));
                break;
            case FLOAT:
                writeFloat(row.getFloat(position), out);
                break;
            case DOUBLE:
                writeFloat((float) row.getDouble(position), out);
                break;
            case CHAR:
            case VARCHAR:
                writeBytes(row.getString(position).toBytes(), out);
                break;
            default:
                writeBytes(row.getBinary(position), out);
        }
    }

    private void writeArray(ArrayData array, BackwardBuffer out) throws TfRecordException {
        for (int i = array.size() - 1; i >= 0; i--) {
            if (array.isNullAt(i)) {
                throw TfRecordException.nullInArray(name, i);
            }
            writeElement(array, i, out);
        }
    }

    private void writeElement(ArrayData array, int index, BackwardBuffer out) throws TfRecordException {
        switch (root) {
            case BOOLEAN:
                out.prependVarint(array.getBoolean(index) ? 1 : 0);
                break;
            case TINYINT:
                out.prependVarint(array.getByte(index));
                break;
            case SMALLINT:
                out.prependVarint(array.getShort(index));
                break;
            case INTEGER:
                out.prependVarint(array.getInt(index));
                break;
            case BIGINT:
                out.prependVarint(array.getLong(index));
                break;
            case FLOAT:
                writeFloat(array.getFloat(index), out);
                break;
            case DOUBLE:
                writeFloat((float) array.getDouble(index), out);
                break;
            case CHAR:
            case VARCHAR:
                writeBytes(array.getString(index).toBytes(), out);
                break;
            default:
                writeBytes(array.getBinary(index), out);
        }
    }

    private static void writeFloat(float value, BackwardBuffer out) throws TfRecordException {
        int at = out.prepend(Float.BYTES);
        LittleEndian.putFloat(out.bytes(), at, value);
    }

    private static void writeBytes(byte[] value, BackwardBuffer out) throws TfRecordException {
        int before = out.size();
        out.prependBytes(value);
        out.wrap(VALUES, before);
    }
}
