package org.headrace.exchange;

import org.apache.flink.core.memory.MemorySegment;
import org.apache.flink.table.data.writer.BinaryRowWriter;

/**
 * One node of the Arrow schema tree: reads its elements out of a message.
 *
 * <p>{@link #load} checks that every buffer is long enough for the node's elements; what the values
 * say (offsets) is checked where it is used. The memory is shared with the process, so a value is
 * read once and the checked copy is used.
 *
 * <p>Thread model: task thread only.
 */
abstract class ColumnReader {

    final String path;

    MemorySegment source;
    int length;

    private int validityAt;
    private boolean hasNulls;

    ColumnReader(String path) {
        this.path = path;
    }

    /** Takes node and buffers of this column, and of those below, from the message. */
    void load(Message message, int least) {
        source = message.memory;
        long elements = message.nextNodeLength();
        MessageMetadata.require(
                elements >= least && elements <= Integer.MAX_VALUE - 8,
                "column `%s` has %s elements, not %s",
                path,
                elements,
                least);
        length = (int) elements;
        hasNulls = message.nextNullCount() != 0;
        validityAt = (int) message.nextBuffer(hasNulls ? (elements + 7) >>> 3 : 0, path);
    }

    /** True if the element is NULL. */
    final boolean isNull(int index) {
        return hasNulls && (source.get(validityAt + (index >>> 3)) & (1 << (index & 7))) == 0;
    }

    /** True if none of these elements is NULL. */
    final boolean isFreeOfNulls(int start, int size) {
        if (hasNulls) {
            for (int i = start; i < start + size; i++) {
                if (isNull(i)) {
                    return false;
                }
            }
        }
        return true;
    }

    /** Writes the non-NULL element as field {@code position} of a row. */
    abstract void read(int index, BinaryRowWriter row, int position);

    /** Writes NULL as field {@code position} of a row. */
    void readNull(BinaryRowWriter row, int position) {
        row.setNullAt(position);
    }

    /** The non-NULL element in Flink's internal form; no part of it is in shared memory. */
    abstract Object get(int index);

    /** The element in Flink's internal form, or null. */
    final Object getOrNull(int index) {
        return isNull(index) ? null : get(index);
    }

    /** Buffers of this node and those below. */
    abstract int bufferCount();

    /** This node and those below. */
    int nodeCount() {
        return 1;
    }

    /** The message that is being read, with a cursor over its nodes and buffers. */
    static final class Message {

        final MemorySegment memory;
        private final MessageMetadata metadata;
        private int node;
        private int buffer;

        Message(MemorySegment memory, MessageMetadata metadata) {
            this.memory = memory;
            this.metadata = metadata;
        }

        long nextNodeLength() {
            return metadata.nodes[node++];
        }

        long nextNullCount() {
            return metadata.nodes[node++];
        }

        /** Start of the next buffer, which has at least {@code least} bytes. */
        long nextBuffer(long least, String path) {
            long at = metadata.buffers[buffer++];
            long bytes = metadata.buffers[buffer++];
            MessageMetadata.require(
                    bytes >= least,
                    "a buffer of column `%s` has %s bytes, not %s",
                    path,
                    bytes,
                    least);
            return at;
        }

        /** Bytes of the buffer that was taken last. */
        long lastBufferBytes() {
            return metadata.buffers[buffer - 1];
        }
    }
}
