package org.headrace.tfrecord;

import org.apache.flink.table.data.GenericRowData;
import org.apache.flink.table.types.logical.RowType;

import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.HashMap;
import java.util.Map;

/**
 * Makes rows of tf.Example messages: each column from the feature of its name; other features are left out.
 *
 * <p>Writers put the features of each record in the same order, mostly: a feature is first compared with the
 * one at its place in the record before. Not safe for several threads.
 *
 * <p>Source: tensorflow/core/example/example.proto and feature.proto.
 */
final class ExampleReader {

    private static final int FEATURES = 1; // of Example
    private static final int ENTRY = 1; // of Features: one of a map
    private static final int KEY = 1;
    private static final int VALUE = 2;
    private static final int NO_COLUMN = -1;
    private static final int REMEMBERED_NAMES = 1024;

    private final ColumnReader[] columns;
    private final Map<ByteBuffer, Integer> columnByName = new HashMap<>();
    private final WireReader in = new WireReader();
    private final FeatureValues values = new FeatureValues();
    private final byte[][] nameAt = new byte[REMEMBERED_NAMES][];
    private final int[] columnAt = new int[REMEMBERED_NAMES];

    ExampleReader(RowType type) {
        columns = new ColumnReader[type.getFieldCount()];
        for (int i = 0; i < columns.length; i++) {
            String name = type.getFieldNames().get(i);
            columns[i] = new ColumnReader(name, type.getTypeAt(i));
            columnByName.put(ByteBuffer.wrap(name.getBytes(StandardCharsets.UTF_8)), i);
        }
    }

    /** A new row of the message. */
    GenericRowData read(byte[] bytes, int start, int length) throws WireFormatException, MisfitException {
        GenericRowData row = new GenericRowData(columns.length);
        in.reset(bytes, start, length);
        int entries = 0;
        while (in.hasMore()) {
            int tag = in.tag();
            if (!isMessage(tag, FEATURES)) {
                in.skip(tag);
                continue;
            }
            int outer = in.enter();
            while (in.hasMore()) {
                int entry = in.tag();
                if (isMessage(entry, ENTRY)) {
                    readEntry(row, entries++);
                } else {
                    in.skip(entry);
                }
            }
            in.leave(outer);
        }
        for (int i = 0; i < columns.length; i++) {
            if (row.isNullAt(i)) {
                columns[i].missing();
            }
        }
        return row;
    }

    private void readEntry(GenericRowData row, int index) throws WireFormatException, MisfitException {
        int outer = in.enter();
        int nameStart = in.at();
        int nameLength = 0;
        int valueStart = in.at();
        int valueLength = 0;
        while (in.hasMore()) {
            int tag = in.tag();
            if (isMessage(tag, KEY)) {
                nameLength = in.length();
                nameStart = in.at();
                in.skipBytes(nameLength);
            } else if (isMessage(tag, VALUE)) {
                valueLength = in.length();
                valueStart = in.at();
                in.skipBytes(valueLength);
            } else {
                in.skip(tag);
            }
        }
        int column = columnOf(index, nameStart, nameLength);
        if (column != NO_COLUMN) {
            int entryEnd = in.end();
            in.reset(in.bytes(), valueStart, valueLength);
            values.read(in);
            row.setField(column, columns[column].read(values));
            in.reset(in.bytes(), entryEnd, 0);
        }
        in.leave(outer);
    }

    private int columnOf(int index, int start, int length) {
        boolean isRemembered = index < REMEMBERED_NAMES;
        byte[] bytes = in.bytes();
        if (isRemembered && nameAt[index] != null) {
            byte[] last = nameAt[index];
            if (Arrays.equals(last, 0, last.length, bytes, start, start + length)) {
                return columnAt[index];
            }
        }
        int column = columnByName.getOrDefault(ByteBuffer.wrap(bytes, start, length), NO_COLUMN);
        if (isRemembered) {
            nameAt[index] = Arrays.copyOfRange(bytes, start, start + length);
            columnAt[index] = column;
        }
        return column;
    }

    private static boolean isMessage(int tag, int field) {
        return tag == (field << 3 | WireReader.LENGTH_DELIMITED);
    }
}
