package org.headrace.exchange;

import org.apache.flink.table.data.ArrayData;
import org.apache.flink.table.data.MapData;
import org.apache.flink.table.data.RowData;

import java.util.List;

/** A column of lists: ARRAY as list, MAP and MULTISET as map. */
abstract class ListColumnWriter extends ColumnWriter {

    private static final double FIRST_GUESS_ELEMENTS = 8;

    final ColumnWriter child;
    private double elementsPerRow = FIRST_GUESS_ELEMENTS;
    private int offsetsAt;

    ListColumnWriter(String path, ColumnWriter child) {
        super(path);
        this.child = child;
    }

    /** True if {@code elements} more elements fit the child. */
    final boolean hasRoom(int elements) {
        return elements <= child.capacity - child.count;
    }

    final boolean close() {
        count++;
        bytes.putInt(offsetsAt + count * Integer.BYTES, child.count);
        return true;
    }

    @Override
    final boolean writeNull() {
        markNull();
        return close();
    }

    @Override
    final void resetDemand() {
        super.resetDemand();
        child.resetDemand();
    }

    @Override
    final void adapt(long elements, double rows) {
        super.adapt(elements, rows);
        child.adapt((long) Math.ceil(elementsPerRow * rows), rows);
    }

    @Override
    final double fixedBytes() {
        return Integer.BYTES + 0.125;
    }

    @Override
    final double variableBytes() {
        return elementsPerRow * child.fixedBytes() + child.variableBytes();
    }

    @Override
    final void learn(int rows, Estimate.Source source) {
        elementsPerRow = Estimate.next(elementsPerRow, child.count, rows, source);
        child.learn(rows, source);
    }

    @Override
    final long place(long at) {
        long offsets = super.place(at);
        offsetsAt = (int) offsets;
        return child.place(align(offsets + (capacity + 1) * Integer.BYTES));
    }

    @Override
    final void begin(Target memory) {
        super.begin(memory);
        bytes.putInt(offsetsAt, 0);
        child.begin(memory);
    }

    @Override
    final void truncate(int newCount) {
        super.truncate(newCount);
        child.truncate(bytes.getInt(offsetsAt + newCount * Integer.BYTES));
    }

    @Override
    final int bufferCount() {
        return 2;
    }

    @Override
    final void collect(List<ColumnWriter> preorder) {
        preorder.add(this);
        child.collect(preorder);
    }

    @Override
    final void describe(MessageMetadata.Builder metadata) {
        super.describe(metadata);
        metadata.buffer(offsetsAt, (count + 1L) * Integer.BYTES);
    }

    /** ARRAY. */
    static final class Arrays extends ListColumnWriter {

        Arrays(String path, ColumnWriter child) {
            super(path, child);
        }

        @Override
        boolean write(RowData row, int position) {
            return row.isNullAt(position) ? writeNull() : append(row.getArray(position));
        }

        @Override
        boolean write(ArrayData array, int position) {
            return array.isNullAt(position) ? writeNull() : append(array.getArray(position));
        }

        private boolean append(ArrayData elements) {
            int size = elements.size();
            if (!hasRoom(size)) {
                return false;
            }
            return child.writeAll(elements, size) && close();
        }

        @Override
        void demand(RowData row, int position) {
            demand(row.getArray(position));
        }

        @Override
        void demand(ArrayData array, int position) {
            demand(array.getArray(position));
        }

        private void demand(ArrayData elements) {
            child.capacity += elements.size();
            for (int i = 0; i < elements.size(); i++) {
                if (!elements.isNullAt(i)) {
                    child.demand(elements, i);
                }
            }
        }
    }

    /** MAP and MULTISET: a list of (key, value). */
    static final class Maps extends ListColumnWriter {

        private final StructColumnWriter.Entries entries;

        Maps(String path, StructColumnWriter.Entries entries) {
            super(path, entries);
            this.entries = entries;
        }

        @Override
        boolean write(RowData row, int position) {
            return row.isNullAt(position) ? writeNull() : append(row.getMap(position));
        }

        @Override
        boolean write(ArrayData array, int position) {
            return array.isNullAt(position) ? writeNull() : append(array.getMap(position));
        }

        private boolean append(MapData map) {
            return hasRoom(map.size()) && entries.append(map) && close();
        }

        @Override
        void demand(RowData row, int position) {
            entries.demand(row.getMap(position));
        }

        @Override
        void demand(ArrayData array, int position) {
            entries.demand(array.getMap(position));
        }
    }
}
