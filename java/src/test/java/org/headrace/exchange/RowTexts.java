package org.headrace.exchange;

import org.apache.flink.table.data.ArrayData;
import org.apache.flink.table.data.MapData;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.types.logical.ArrayType;
import org.apache.flink.table.types.logical.LogicalType;
import org.apache.flink.table.types.logical.RowType;

import java.util.HexFormat;
import java.util.StringJoiner;
import java.util.TreeSet;

/** Rows as text, exact to the bit, whatever class of RowData holds them. */
final class RowTexts {

    private RowTexts() {}

    static String of(RowData row, RowType type) {
        StringJoiner text = new StringJoiner(", ", "(", ")");
        for (int i = 0; i < type.getFieldCount(); i++) {
            LogicalType field = type.getTypeAt(i);
            text.add(value(RowData.createFieldGetter(field, i).getFieldOrNull(row), field));
        }
        return text.toString();
    }

    private static String value(Object value, LogicalType type) {
        if (value == null) {
            return "NULL";
        }
        switch (type.getTypeRoot()) {
            case FLOAT:
                return Integer.toHexString(Float.floatToRawIntBits((Float) value));
            case DOUBLE:
                return Long.toHexString(Double.doubleToRawLongBits((Double) value));
            case BINARY:
            case VARBINARY:
                return HexFormat.of().formatHex((byte[]) value);
            case ROW:
                return of((RowData) value, (RowType) type);
            case ARRAY:
                return array((ArrayData) value, ((ArrayType) type).getElementType());
            case MAP:
            case MULTISET:
                return map((MapData) value, type);
            default:
                return value.toString();
        }
    }

    private static String array(ArrayData array, LogicalType element) {
        StringJoiner text = new StringJoiner(", ", "[", "]");
        ArrayData.ElementGetter getter = ArrayData.createElementGetter(element);
        for (int i = 0; i < array.size(); i++) {
            text.add(value(getter.getElementOrNull(array, i), element));
        }
        return text.toString();
    }

    private static String map(MapData map, LogicalType type) {
        LogicalType key = ArrowSchemas.keyType(type);
        LogicalType value = ArrowSchemas.valueType(type);
        ArrayData.ElementGetter keys = ArrayData.createElementGetter(key);
        ArrayData.ElementGetter values = ArrayData.createElementGetter(value);
        TreeSet<String> entries = new TreeSet<>();
        for (int i = 0; i < map.size(); i++) {
            String k = value(keys.getElementOrNull(map.keyArray(), i), key);
            entries.add(k + "=" + value(values.getElementOrNull(map.valueArray(), i), value));
        }
        return entries.toString();
    }
}
