package org.headrace.exchange;

import org.apache.flink.table.data.ArrayData;
import org.apache.flink.table.data.RowData;

import java.nio.ByteBuffer;
import java.util.List;

/**
 * One node of the Arrow schema tree: writes its elements straight into the regions of a message.
 *
 * <p>Life of a batch: {@link #adapt} or {@link #demand} sets capacities, {@link #place} lays the
 * regions out, {@link #begin} starts, elements are appended, {@link #truncate} takes back those of
 * a row that did not fit, {@link #describe} yields node and buffers for the metadata.
 *
 * <p>The validity region is untouched until the first NULL of a batch; it is then filled with ones
 * and a NULL clears its bit, so that values cost nothing.
 *
 * <p>Thread model: task thread only.
 */
abstract class ColumnWriter {

    /** Regions start at multiples of this many bytes from the start of the message. */
    static final int ALIGNMENT = 64;

    final String path;

    Target target;
    ByteBuffer bytes; // of the target
    int count;
    long capacity;

    private int nullCount;
    private long validityAt;

    ColumnWriter(String path) {
        this.path = path;
    }

    /** Appends a field of a row; false if it does not fit (the caller then truncates). */
    abstract boolean write(RowData row, int position);

    /** Appends an array element; false if it does not fit (the caller then truncates). */
    abstract boolean write(ArrayData array, int position);

    /** Appends all {@code size} elements of an array, for which there is capacity. */
    boolean writeAll(ArrayData array, int size) {
        for (int i = 0; i < size; i++) {
            if (!write(array, i)) {
                return false;
            }
        }
        return true;
    }

    /** Appends NULL. */
    abstract boolean writeNull();

    /** Adds what the non-NULL field of a row needs below this node to its demand. */
    void demand(RowData row, int position) {}

    /** Adds what the non-NULL array element needs below this node to its demand. */
    void demand(ArrayData array, int position) {}

    /** Forgets all demand. */
    void resetDemand() {
        capacity = 0;
    }

    /** Sets the capacity to {@code elements}; below lists and strings for about {@code rows}. */
    void adapt(long elements, double rows) {
        capacity = elements;
    }

    /** Bytes per element of this node that do not depend on the values. */
    abstract double fixedBytes();

    /** Expected further bytes per row of the table, from what was seen so far. */
    double variableBytes() {
        return 0;
    }

    /** Learns from the batch just written. */
    void learn(int rows, Estimate.Source source) {}

    /** Lays out the regions from {@code at} on; returns the end, a multiple of ALIGNMENT. */
    long place(long at) {
        validityAt = at;
        return align(at + ((capacity + 7) >>> 3));
    }

    /** Starts a batch in {@code memory}, laid out by {@link #place}. */
    void begin(Target memory) {
        target = memory;
        bytes = memory.bytes();
        count = 0;
        nullCount = 0;
    }

    /** Takes back all elements from {@code newCount} on. */
    void truncate(int newCount) {
        if (nullCount > 0) {
            for (int i = newCount; i < count; i++) {
                int at = (int) validityAt + (i >>> 3);
                int bit = 1 << (i & 7);
                byte bits = bytes.get(at);
                if ((bits & bit) == 0) {
                    bytes.put(at, (byte) (bits | bit));
                    nullCount--;
                }
            }
        }
        count = newCount;
    }

    /** Buffers of this node, without those below. */
    abstract int bufferCount();

    /** Adds this node and those below in the order of the schema. */
    abstract void collect(List<ColumnWriter> preorder);

    /** Adds node and buffers to the metadata. */
    void describe(MessageMetadata.Builder metadata) {
        metadata.node(count, nullCount);
        if (nullCount == 0) {
            metadata.buffer(validityAt, 0);
            return;
        }
        int size = (count + 7) >>> 3;
        int used = count & 7;
        if (used != 0) {
            int last = (int) validityAt + size - 1;
            bytes.put(last, (byte) (bytes.get(last) & ((1 << used) - 1)));
        }
        metadata.buffer(validityAt, size);
    }

    /** Marks the element at {@code count} as NULL; the caller advances {@code count}. */
    final void markNull() {
        int at = (int) validityAt;
        if (nullCount == 0) {
            int size = (int) ((capacity + 7) >>> 3);
            for (int i = 0; i < size; i += Long.BYTES) { // the region is a multiple of 64 bytes
                bytes.putLong(at + i, -1L);
            }
        }
        nullCount++;
        int byteAt = at + (count >>> 3);
        bytes.put(byteAt, (byte) (bytes.get(byteAt) & ~(1 << (count & 7))));
    }

    /** Makes all of {@code elements} elements NULL, whatever was written; their values are undefined. */
    final void markAllNull(int elements) {
        count = elements;
        nullCount = elements;
        int size = (elements + 7) >>> 3;
        for (int i = 0; i < size; i += Long.BYTES) { // the region is a multiple of 64 bytes
            bytes.putLong((int) validityAt + i, 0L);
        }
    }

    static long align(long offset) {
        return (offset + ALIGNMENT - 1) & -ALIGNMENT;
    }
}
