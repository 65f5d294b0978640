package org.headrace.exchange;

import org.apache.flink.api.common.typeutils.TypeSerializer;
import org.apache.flink.table.data.ArrayData;
import org.apache.flink.table.data.GenericArrayData;
import org.apache.flink.table.data.GenericMapData;
import org.apache.flink.table.data.GenericRowData;
import org.apache.flink.table.data.MapData;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.data.writer.BinaryRowWriter;
import org.apache.flink.table.runtime.typeutils.ArrayDataSerializer;
import org.apache.flink.table.runtime.typeutils.InternalSerializers;
import org.apache.flink.table.runtime.typeutils.MapDataSerializer;
import org.apache.flink.table.runtime.typeutils.RowDataSerializer;
import org.apache.flink.table.types.logical.LogicalType;

import java.util.HashMap;
import java.util.Map;

/** ARRAY, MAP, MULTISET and ROW. */
abstract class NestedColumnReader extends ColumnReader {

    final ColumnReader[] children;

    NestedColumnReader(String path, ColumnReader... children) {
        super(path);
        this.children = children;
    }

    @Override
    final int nodeCount() {
        int nodes = 1;
        for (ColumnReader child : children) {
            nodes += child.nodeCount();
        }
        return nodes;
    }

    @Override
    int bufferCount() {
        int buffers = 1;
        for (ColumnReader child : children) {
            buffers += child.bufferCount();
        }
        return buffers;
    }

    /** A list: offsets into one child. */
    abstract static class Lists extends NestedColumnReader {

        private int offsetsAt;

        Lists(String path, ColumnReader child) {
            super(path, child);
        }

        @Override
        final void load(Message message, int least) {
            super.load(message, least);
            offsetsAt = (int) message.nextBuffer(length == 0 ? 0 : (length + 1L) * 4, path);
            children[0].load(message, 0);
        }

        @Override
        final int bufferCount() {
            return super.bufferCount() + 1;
        }

        @Override
        final Object get(int index) {
            int start = source.getInt(offsetsAt + index * Integer.BYTES);
            int end = source.getInt(offsetsAt + (index + 1) * Integer.BYTES);
            MessageMetadata.require(
                    start >= 0 && start <= end && end <= children[0].length,
                    "column `%s`: element %s is items %s to %s of %s",
                    path,
                    index,
                    start,
                    end,
                    children[0].length);
            return get(start, end - start);
        }

        abstract Object get(int start, int size);
    }

    /** ARRAY. */
    static final class Arrays extends Lists {

        private final ArrayDataSerializer serializer;

        Arrays(String path, LogicalType type, ColumnReader child) {
            super(path, child);
            TypeSerializer<ArrayData> created = InternalSerializers.create(type);
            serializer = (ArrayDataSerializer) created;
        }

        @Override
        void read(int index, BinaryRowWriter row, int position) {
            row.writeArray(position, (ArrayData) get(index), serializer);
        }

        @Override
        ArrayData get(int start, int size) {
            ColumnReader child = children[0];
            if (child instanceof NumberColumnReader && child.isFreeOfNulls(start, size)) {
                return ((NumberColumnReader) child).array(start, size);
            }
            Object[] elements = new Object[size];
            for (int i = 0; i < size; i++) {
                elements[i] = child.getOrNull(start + i);
            }
            return new GenericArrayData(elements);
        }
    }

    /** MAP and MULTISET. */
    static final class Maps extends Lists {

        private final MapDataSerializer serializer;

        Maps(String path, LogicalType type, Rows entries) {
            super(path, entries);
            TypeSerializer<MapData> created = InternalSerializers.create(type);
            serializer = (MapDataSerializer) created;
        }

        @Override
        void read(int index, BinaryRowWriter row, int position) {
            row.writeMap(position, (MapData) get(index), serializer);
        }

        @Override
        MapData get(int start, int size) {
            ColumnReader[] entry = ((Rows) children[0]).children;
            Map<Object, Object> map = new HashMap<>();
            for (int i = start; i < start + size; i++) {
                MessageMetadata.require(
                        !entry[0].isNull(i), "column `%s` holds a map with a NULL key", path);
                map.put(entry[0].get(i), entry[1].getOrNull(i));
            }
            return new GenericMapData(map);
        }
    }

    /** ROW, and the entries of a map. */
    static final class Rows extends NestedColumnReader {

        private final RowDataSerializer serializer;

        /** With type null: entries of a map, which are read by their map only. */
        Rows(String path, LogicalType type, ColumnReader... children) {
            super(path, children);
            if (type == null) {
                serializer = null;
            } else {
                TypeSerializer<RowData> created = InternalSerializers.create(type);
                serializer = (RowDataSerializer) created;
            }
        }

        @Override
        void load(Message message, int least) {
            super.load(message, least);
            for (ColumnReader child : children) {
                child.load(message, length);
            }
        }

        @Override
        void read(int index, BinaryRowWriter row, int position) {
            row.writeRow(position, get(index), serializer);
        }

        @Override
        RowData get(int index) {
            GenericRowData row = new GenericRowData(children.length);
            for (int i = 0; i < children.length; i++) {
                row.setField(i, children[i].getOrNull(index));
            }
            return row;
        }
    }
}
