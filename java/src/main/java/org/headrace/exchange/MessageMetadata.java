package org.headrace.exchange;

import org.apache.flink.api.python.shaded.com.google.flatbuffers.FlatBufferBuilder;
import org.apache.flink.api.python.shaded.org.apache.arrow.flatbuf.Buffer;
import org.apache.flink.api.python.shaded.org.apache.arrow.flatbuf.FieldNode;
import org.apache.flink.api.python.shaded.org.apache.arrow.flatbuf.Message;
import org.apache.flink.api.python.shaded.org.apache.arrow.flatbuf.MessageHeader;
import org.apache.flink.api.python.shaded.org.apache.arrow.flatbuf.MetadataVersion;
import org.apache.flink.api.python.shaded.org.apache.arrow.flatbuf.RecordBatch;
import org.apache.flink.core.memory.MemorySegment;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;

/**
 * The metadata of one Arrow IPC record-batch message: nodes and buffers in schema order.
 *
 * <p>Source: Arrow columnar format, "Encapsulated message format"; docs/exchange.md section 1.
 */
final class MessageMetadata {

    static final int CONTINUATION = 0xFFFFFFFF;

    /** Continuation marker and size of the metadata. */
    static final int PREFIX_BYTES = 8;

    private static final int STRUCT_BYTES = 16;
    private static final int TABLES_BYTES = 256;
    private static final int MOST_TABLES_BYTES = 1 << 16; // of another writer

    final long rows;
    final long[] nodes; // length, null count, length, ...
    final long[] buffers; // offset from the start of the message, length, offset, ...

    private MessageMetadata(long rows, long[] nodes, long[] buffers) {
        this.rows = rows;
        this.nodes = nodes;
        this.buffers = buffers;
    }

    /**
     * Parses the metadata of the message in the first {@code messageBytes} of {@code memory}.
     *
     * <p>Every buffer of the result lies inside the message.
     *
     * @throws MalformedMessageException if it is not a record batch of that many nodes and buffers
     */
    static MessageMetadata parse(
            MemorySegment memory, int messageBytes, int nodeCount, int bufferCount) {
        require(messageBytes >= PREFIX_BYTES, "message of %s bytes", messageBytes);
        require(messageBytes <= memory.size(), "message of %s bytes is too long", messageBytes);
        require(memory.getInt(0) == CONTINUATION, "no continuation marker");
        int metadataBytes = memory.getInt(Integer.BYTES);
        require(
                metadataBytes > 0
                        && metadataBytes <= messageBytes - PREFIX_BYTES
                        && metadataBytes <= MOST_TABLES_BYTES + STRUCT_BYTES * (nodeCount + bufferCount),
                "metadata of %s bytes",
                metadataBytes);
        byte[] copy = new byte[metadataBytes];
        memory.get(PREFIX_BYTES, copy, 0, metadataBytes);
        try {
            return parse(copy, messageBytes, nodeCount, bufferCount);
        } catch (IndexOutOfBoundsException | IllegalArgumentException | AssertionError e) {
            throw new MalformedMessageException("Record batch with broken metadata.", e);
        }
    }

    private static MessageMetadata parse(
            byte[] metadata, int messageBytes, int nodeCount, int bufferCount) {
        ByteBuffer bytes = ByteBuffer.wrap(metadata).order(ByteOrder.LITTLE_ENDIAN);
        Message message = Message.getRootAsMessage(bytes);
        require(
                message.version() == MetadataVersion.V5 || message.version() == MetadataVersion.V4,
                "metadata version %s",
                message.version());
        require(
                message.headerType() == MessageHeader.RecordBatch,
                "message header %s, not a record batch",
                message.headerType());
        RecordBatch batch = (RecordBatch) message.header(new RecordBatch());
        require(batch != null, "no record batch in the message");
        require(batch.compression() == null, "compressed record batch");
        require(
                batch.nodesLength() == nodeCount && batch.buffersLength() == bufferCount,
                "%s nodes and %s buffers, not %s and %s as in the schema",
                batch.nodesLength(),
                batch.buffersLength(),
                nodeCount,
                bufferCount);
        long bodyAt = (long) PREFIX_BYTES + metadata.length;
        long bodyBytes = message.bodyLength();
        require(
                bodyBytes >= 0 && bodyBytes <= messageBytes - bodyAt,
                "body of %s bytes in a message of %s",
                bodyBytes,
                messageBytes);
        long[] nodes = new long[2 * nodeCount];
        FieldNode node = new FieldNode();
        for (int i = 0; i < nodeCount; i++) {
            batch.nodes(node, i);
            nodes[2 * i] = node.length();
            nodes[2 * i + 1] = node.nullCount();
        }
        long[] buffers = new long[2 * bufferCount];
        Buffer buffer = new Buffer();
        for (int i = 0; i < bufferCount; i++) {
            batch.buffers(buffer, i);
            long offset = buffer.offset();
            long length = buffer.length();
            require(
                    offset >= 0 && length >= 0 && length <= bodyBytes && offset <= bodyBytes - length,
                    "buffer %s: %s bytes at %s in a body of %s",
                    i,
                    length,
                    offset,
                    bodyBytes);
            buffers[2 * i] = bodyAt + offset;
            buffers[2 * i + 1] = length;
        }
        return new MessageMetadata(batch.length(), nodes, buffers);
    }

    /** Fails with {@link MalformedMessageException} unless {@code holds}. */
    static void require(boolean holds, String what, Object... values) {
        if (!holds) {
            throw new MalformedMessageException(
                    "The process sent a malformed record batch: " + String.format(what, values));
        }
    }

    /** Collects nodes and buffers of one batch and writes the metadata before its body. */
    static final class Builder {

        private final long[] nodes;
        private final long[] buffers;
        private final int bodyAt;
        private final FlatBufferBuilder flat;
        private int nodesUsed;
        private int buffersUsed;
        private long bodyEnd;
        private long payloadBytes;

        Builder(int nodeCount, int bufferCount) {
            nodes = new long[2 * nodeCount];
            buffers = new long[2 * bufferCount];
            int most = TABLES_BYTES + STRUCT_BYTES * (nodeCount + bufferCount);
            bodyAt = (int) ColumnWriter.align((long) PREFIX_BYTES + most);
            flat = new FlatBufferBuilder(bodyAt);
        }

        /** Where the body starts: metadata of this many nodes and buffers fits before it. */
        int bodyAt() {
            return bodyAt;
        }

        long payloadBytes() {
            return payloadBytes;
        }

        int bufferCount() {
            return buffers.length / 2;
        }

        void clear() {
            nodesUsed = 0;
            buffersUsed = 0;
            bodyEnd = bodyAt;
            payloadBytes = 0;
        }

        void node(long length, long nullCount) {
            nodes[nodesUsed++] = length;
            nodes[nodesUsed++] = nullCount;
        }

        /** Adds a buffer at {@code offset} from the start of the message. */
        void buffer(long offset, long length) {
            buffers[buffersUsed++] = offset - bodyAt;
            buffers[buffersUsed++] = length;
            payloadBytes += length;
            bodyEnd = Math.max(bodyEnd, offset + length);
        }

        /** Writes prefix and metadata; returns the bytes of the whole message. */
        int write(MemorySegment target, int rows) {
            long bodyBytes = (bodyEnd + 7 & -8) - bodyAt;
            flat.clear();
            RecordBatch.startNodesVector(flat, nodes.length / 2);
            for (int i = nodes.length; i > 0; i -= 2) {
                FieldNode.createFieldNode(flat, nodes[i - 2], nodes[i - 1]);
            }
            int nodesAt = flat.endVector();
            RecordBatch.startBuffersVector(flat, buffers.length / 2);
            for (int i = buffers.length; i > 0; i -= 2) {
                Buffer.createBuffer(flat, buffers[i - 2], buffers[i - 1]);
            }
            int buffersAt = flat.endVector();
            RecordBatch.startRecordBatch(flat);
            RecordBatch.addLength(flat, rows);
            RecordBatch.addNodes(flat, nodesAt);
            RecordBatch.addBuffers(flat, buffersAt);
            int batch = RecordBatch.endRecordBatch(flat);
            Message.startMessage(flat);
            Message.addBodyLength(flat, bodyBytes);
            Message.addHeader(flat, batch);
            Message.addHeaderType(flat, MessageHeader.RecordBatch);
            Message.addVersion(flat, MetadataVersion.V5);
            flat.finish(Message.endMessage(flat));
            ByteBuffer bytes = flat.dataBuffer();
            int size = bytes.remaining();
            if (size > bodyAt - PREFIX_BYTES) {
                throw new IllegalStateException("metadata of " + size + " bytes");
            }
            target.putInt(0, CONTINUATION);
            target.putInt(Integer.BYTES, bodyAt - PREFIX_BYTES);
            target.put(PREFIX_BYTES, bytes, size);
            for (int at = PREFIX_BYTES + size; at < bodyAt; at++) {
                target.put(at, (byte) 0);
            }
            return (int) (bodyAt + bodyBytes);
        }
    }
}
