package org.headrace.exchange;

import java.io.EOFException;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.SocketChannel;

/**
 * Frames over one non-blocking connection.
 *
 * <p>Nothing here blocks: what the socket does not take at once stays in the outbox, and the IO thread
 * writes it when the socket has room. Until an outbox is attached only the handshake is written.
 *
 * <p>Thread model: {@link #receive} on the IO thread only, all else on any thread. An IO error while
 * writing is seen by the IO thread, which still reads what the process had sent before.
 */
final class FrameChannel implements AutoCloseable {

    private static final int READ_BYTES = 1 << 16; // some frames, whatever their size

    private final SocketChannel socket;
    private final Runnable wakeUpIo;
    private final Object lock = new Object();
    private ByteBuffer partlySent;
    private FrameOutbox outbox;
    private IOException failure;

    private final ByteBuffer received = Frame.littleEndian(ByteBuffer.allocate(READ_BYTES).flip());

    /** {@code wakeUpIo} makes the IO thread look at {@link #wantsToWrite} again. */
    FrameChannel(SocketChannel socket, Runnable wakeUpIo) {
        this.socket = socket;
        this.wakeUpIo = wakeUpIo;
    }

    /** Sends the frame of the handshake, before an outbox is attached. */
    void sendFirst(Frame frame) {
        synchronized (lock) {
            partlySent = frame.encode();
        }
        flush();
    }

    /** Sends from this outbox from now on: the process has mapped the segments. */
    void attach(FrameOutbox frames) {
        synchronized (lock) {
            outbox = frames;
        }
        flush();
    }

    /** Writes what the socket takes now. */
    void flush() {
        boolean isStuck;
        synchronized (lock) {
            try {
                while (failure == null && hasNext()) {
                    socket.write(partlySent);
                    if (partlySent.hasRemaining()) {
                        break;
                    }
                    partlySent = null;
                }
            } catch (IOException e) {
                failure = e;
            }
            isStuck = partlySent != null;
        }
        if (isStuck) {
            wakeUpIo.run();
        }
    }

    private boolean hasNext() {
        if (partlySent == null && outbox != null) {
            Frame next = outbox.poll();
            partlySent = next == null ? null : next.encode();
        }
        return partlySent != null;
    }

    /** True if the IO thread shall call {@link #flush} when the socket has room. */
    boolean wantsToWrite() {
        synchronized (lock) {
            return partlySent != null && failure == null;
        }
    }

    /**
     * Returns the next frame, or null if there is none now.
     *
     * @throws EOFException if the process has closed the connection
     * @throws MalformedMessageException if the bytes are no frame
     */
    Frame receive() throws IOException {
        while (true) {
            Frame frame = Frame.decode(received, Frame.MAX_PAYLOAD_OF_PROCESS_BYTES);
            if (frame != null) {
                return frame;
            }
            received.compact();
            int bytes = socket.read(received);
            received.flip();
            if (bytes < 0) {
                throw new EOFException("The process closed the connection.");
            }
            if (bytes == 0) {
                return null;
            }
        }
    }

    /**
     * Returns the first frame, or null if it is not whole yet. Never takes more memory than it has.
     *
     * @throws EOFException if the other side has closed the connection
     * @throws MalformedMessageException if what came is not the beginning of a HELLO
     */
    Frame receiveHello() throws IOException {
        received.compact();
        int bytes = socket.read(received);
        received.flip();
        Handshake.requireBeginOfHello(received);
        Frame frame = Frame.decode(received, Frame.MAX_PAYLOAD_OF_PROCESS_BYTES);
        if (frame != null) {
            Handshake.requireHello(frame);
        } else if (bytes < 0) {
            throw new EOFException("it has ended without a HELLO");
        }
        return frame;
    }

    @Override
    public void close() throws IOException {
        socket.close();
        wakeUpIo.run(); // closing alone does not end its wait
    }
}
