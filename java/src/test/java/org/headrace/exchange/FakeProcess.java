package org.headrace.exchange;

import org.apache.flink.core.memory.MemorySegment;
import org.apache.flink.core.memory.MemorySegmentFactory;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.JsonNode;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.ObjectMapper;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.types.logical.RowType;

import java.io.IOException;
import java.net.UnixDomainSocketAddress;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.channels.SocketChannel;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.ArrayList;
import java.util.List;

/** The process's side of the protocol, for tests; blocking calls on any one thread. */
final class FakeProcess implements AutoCloseable {

    static final long PID = ProcessHandle.current().pid();

    private final SocketChannel socket;
    private final List<FileChannel> offered = new ArrayList<>();
    private final ByteBuffer received =
            Frame.littleEndian(ByteBuffer.allocate(1 << 16)).limit(0);
    private Direction input;
    private Direction output;
    private long lastSlot;

    FakeProcess(Path socketPath) throws IOException {
        socket = SocketChannel.open(UnixDomainSocketAddress.of(socketPath));
    }

    void send(Frame frame) throws IOException {
        ByteBuffer bytes = frame.encode();
        while (bytes.hasRemaining()) {
            socket.write(bytes);
        }
    }

    void sendBytes(byte[] bytes) throws IOException {
        ByteBuffer left = ByteBuffer.wrap(bytes);
        while (left.hasRemaining()) {
            socket.write(left);
        }
    }

    /** The next frame; null if the JVM has closed the connection. */
    Frame receive() throws IOException {
        while (true) {
            Frame frame = Frame.decode(received, Frame.MAX_PAYLOAD_BYTES);
            if (frame != null) {
                return frame;
            }
            received.compact();
            int bytes = socket.read(received);
            received.flip();
            if (bytes < 0) {
                return null;
            }
        }
    }

    /** True if there is something to receive now. */
    boolean hasInput() throws IOException {
        socket.configureBlocking(false);
        received.compact();
        socket.read(received);
        received.flip();
        socket.configureBlocking(true);
        return received.hasRemaining();
    }

    void hello() throws IOException {
        send(Frame.text(FrameType.HELLO, Handshake.VERSION, "{\"attempt\": 1, \"pid\": " + PID + "}"));
    }

    /** Opens a file, and returns the path by which the JVM finds it then; closed with the process. */
    Path offer(Path name) throws IOException {
        offered.add(FileChannel.open(name, StandardOpenOption.READ, StandardOpenOption.WRITE));
        return Segment.pathOfOpenFile(name.toRealPath());
    }

    /** Receives OPEN, opens the segments and says MAPPED. */
    void map() throws IOException {
        JsonNode open = new ObjectMapper().readTree(receive().payload());
        input = Direction.open(open.get("input"));
        output = Direction.open(open.get("output"));
        send(Frame.of(FrameType.MAPPED, 0));
    }

    /** Receives OPEN and returns the path of one segment, without opening it. */
    Path offeredPath(String direction) throws IOException {
        JsonNode open = new ObjectMapper().readTree(receive().payload());
        return Path.of(open.get(direction).get("path").asText());
    }

    /** Receives a BATCH and returns its rows; the slot stays with the process. */
    List<String> receiveRows(RowType type) throws IOException {
        Frame frame = receive();
        Behaviours.checkEqual(frame.type(), FrameType.BATCH);
        List<String> rows =
                rows(input.file(), frame.value() * input.slotBytes(), frame.messageBytes(), type);
        Behaviours.checkEqual(rows.size(), frame.rows());
        lastSlot = frame.value();
        return rows;
    }

    /** Gives back the slot of the last batch. */
    void sendCredit() throws IOException {
        send(Frame.of(FrameType.CREDIT, lastSlot));
    }

    /** Writes rows into a slot of the output segment and sends them. */
    void sendRows(int slot, RowType type, RowData... rows) throws IOException {
        byte[] message = message(type, rows);
        output.file().write(ByteBuffer.wrap(message), (long) slot * output.slotBytes());
        send(Frame.batch(slot, message.length, rows.length));
    }

    Direction input() {
        return input;
    }

    Direction output() {
        return output;
    }

    /** One direction of OPEN; the file is open, linked or not. */
    record Direction(Path path, int slots, int slotBytes, FileChannel file) {

        static Direction open(JsonNode node) throws IOException {
            if (node.isNull()) {
                return null;
            }
            Path path = Path.of(node.get("path").asText());
            return new Direction(
                    path,
                    node.get("slots").asInt(),
                    node.get("slot_bytes").asInt(),
                    FileChannel.open(path, StandardOpenOption.READ, StandardOpenOption.WRITE));
        }

        void close() throws IOException {
            file.close();
        }
    }

    static List<String> rows(FileChannel file, long offset, int messageBytes, RowType type)
            throws IOException {
        byte[] bytes = new byte[messageBytes];
        file.read(ByteBuffer.wrap(bytes), offset);
        BatchReader reader = new BatchReader(type);
        reader.open(offHeap(bytes), messageBytes);
        List<String> rows = new ArrayList<>();
        for (int i = 0; i < reader.rows(); i++) {
            rows.add(RowTexts.of(reader.row(i), type));
        }
        return rows;
    }

    static byte[] message(RowType type, RowData... rows) {
        BatchWriter writer = new BatchWriter(type, rows.length);
        int bytes = 4096 + (int) (rows.length * writer.measure(rows[0]));
        MemorySegment memory = MemorySegmentFactory.allocateUnpooledOffHeapMemory(bytes);
        writer.begin(memory);
        for (RowData row : rows) {
            if (!writer.write(row, false, 0)) {
                throw new AssertionError("too many rows for a test");
            }
        }
        byte[] message = new byte[writer.finish()];
        memory.get(0, message);
        return message;
    }

    static MemorySegment offHeap(byte[] bytes) {
        return MemorySegmentFactory.wrapOffHeapMemory(
                ByteBuffer.allocateDirect(bytes.length).put(bytes).flip());
    }

    /** Closes the connection and what was offered, as an exit does. */
    void hangUp() throws IOException {
        socket.close();
        for (FileChannel each : offered) {
            each.close();
        }
    }

    @Override
    public void close() throws IOException {
        if (input != null) {
            input.close();
        }
        if (output != null) {
            output.close();
        }
        hangUp();
    }
}
