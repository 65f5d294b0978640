package org.headrace.exchange;

import org.apache.flink.table.data.ArrayData;
import org.apache.flink.table.data.MapData;
import org.apache.flink.table.data.RowData;

import java.util.List;

/** A column of structs: ROW, and the entries of a map. */
abstract class StructColumnWriter extends ColumnWriter {

    final ColumnWriter[] children;

    StructColumnWriter(String path, ColumnWriter... children) {
        super(path);
        this.children = children;
    }

    @Override
    final boolean writeNull() {
        markNull();
        count++;
        for (ColumnWriter child : children) {
            child.writeNull();
        }
        return true;
    }

    @Override
    final void resetDemand() {
        super.resetDemand();
        for (ColumnWriter child : children) {
            child.resetDemand();
        }
    }

    @Override
    final void adapt(long elements, double rows) {
        super.adapt(elements, rows);
        for (ColumnWriter child : children) {
            child.adapt(elements, rows);
        }
    }

    @Override
    final double fixedBytes() {
        double bytes = 0.125;
        for (ColumnWriter child : children) {
            bytes += child.fixedBytes();
        }
        return bytes;
    }

    @Override
    final double variableBytes() {
        double bytes = 0;
        for (ColumnWriter child : children) {
            bytes += child.variableBytes();
        }
        return bytes;
    }

    @Override
    final void learn(int rows, Estimate.Source source) {
        for (ColumnWriter child : children) {
            child.learn(rows, source);
        }
    }

    @Override
    final long place(long at) {
        long next = super.place(at);
        for (ColumnWriter child : children) {
            child.capacity = capacity;
            next = child.place(next);
        }
        return next;
    }

    @Override
    final void begin(Target memory) {
        super.begin(memory);
        for (ColumnWriter child : children) {
            child.begin(memory);
        }
    }

    @Override
    final void truncate(int newCount) {
        super.truncate(newCount);
        for (ColumnWriter child : children) {
            child.truncate(newCount);
        }
    }

    @Override
    final int bufferCount() {
        return 1;
    }

    @Override
    final void collect(List<ColumnWriter> preorder) {
        preorder.add(this);
        for (ColumnWriter child : children) {
            child.collect(preorder);
        }
    }

    /** ROW. */
    static final class Rows extends StructColumnWriter {

        Rows(String path, ColumnWriter[] fields) {
            super(path, fields);
        }

        @Override
        boolean write(RowData row, int position) {
            return row.isNullAt(position)
                    ? writeNull()
                    : append(row.getRow(position, children.length));
        }

        @Override
        boolean write(ArrayData array, int position) {
            return array.isNullAt(position)
                    ? writeNull()
                    : append(array.getRow(position, children.length));
        }

        private boolean append(RowData value) {
            for (int i = 0; i < children.length; i++) {
                if (!children[i].write(value, i)) {
                    return false;
                }
            }
            count++;
            return true;
        }

        @Override
        void demand(RowData row, int position) {
            demand(row.getRow(position, children.length));
        }

        @Override
        void demand(ArrayData array, int position) {
            demand(array.getRow(position, children.length));
        }

        private void demand(RowData value) {
            for (int i = 0; i < children.length; i++) {
                if (!value.isNullAt(i)) {
                    children[i].demand(value, i);
                }
            }
        }
    }

    /** Entries of a map: never NULL, and no NULL keys (Arrow has none). */
    static final class Entries extends StructColumnWriter {

        Entries(String path, ColumnWriter key, ColumnWriter value) {
            super(path, key, value);
        }

        boolean append(MapData map) {
            ArrayData keys = map.keyArray();
            ArrayData values = map.valueArray();
            for (int i = 0; i < map.size(); i++) {
                if (keys.isNullAt(i)) {
                    throw new ExchangeException(
                            String.format(
                                    "Column `%s` holds a map with a NULL key, which Arrow does not"
                                            + " allow. Filter it out.",
                                    children[0].path));
                }
                if (!children[0].write(keys, i) || !children[1].write(values, i)) {
                    return false;
                }
                count++;
            }
            return true;
        }

        void demand(MapData map) {
            capacity += map.size();
            ArrayData keys = map.keyArray();
            ArrayData values = map.valueArray();
            for (int i = 0; i < map.size(); i++) {
                if (!keys.isNullAt(i)) {
                    children[0].demand(keys, i);
                }
                if (!values.isNullAt(i)) {
                    children[1].demand(values, i);
                }
            }
        }

        @Override
        boolean write(RowData row, int position) {
            throw new UnsupportedOperationException("entries are appended by their map");
        }

        @Override
        boolean write(ArrayData array, int position) {
            throw new UnsupportedOperationException("entries are appended by their map");
        }
    }
}
