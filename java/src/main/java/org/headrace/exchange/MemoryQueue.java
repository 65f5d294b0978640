package org.headrace.exchange;

import org.apache.flink.annotation.Internal;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.types.logical.RowType;

import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

import java.io.IOException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;

/**
 * The memory queue of one subtask: rows to its algorithm process and rows back.
 *
 * <p>Layout and protocol: docs/exchange.md. The socket listens and the segments exist from {@link
 * #open} on, so rows may be written before the process has connected. Every wait yields to the
 * mailbox: it emits what the process sends (no deadlock when both directions are full), and an
 * interrupt, or a mail that throws, ends it.
 *
 * <p>Thread model: all methods on the task thread, but the counters on any. One IO thread of its own,
 * which ends with {@link #close}. An exception from any method, or from a mail of the queue, fails
 * the task; the caller then closes the queue.
 */
@Internal
public final class MemoryQueue implements AutoCloseable {

    /**
     * How long a write that finds no free slot goes on waiting after the process was lost, so that
     * the real cause (its traceback) can arrive and fail the task first.
     */
    public static final long LOST_GRACE_MS = 10_000;

    private static final Logger LOG = LoggerFactory.getLogger(MemoryQueue.class);

    private final TaskHooks task;
    private final QueueListener listener;
    private final Handshake handshake;
    private final InputSide input; // null: the role has no input
    private final OutputSide output; // null: the role has no output
    private final QueueIo io;

    private FrameOutbox outbox = new FrameOutbox();
    private int connection;
    private FrameChannel channel; // null: no process is connected
    private boolean isMapped;
    private boolean isProcessDone;
    private boolean isEndWritten;
    private boolean isClosed;
    private Throwable lostCause; // null: not lost
    private boolean isGraceOver;

    private MemoryQueue(
            ExchangeSettings settings,
            RowType inputType,
            RowType outputType,
            QueuePlace place,
            TaskHooks task,
            QueueListener listener) {
        this.task = task;
        this.listener = listener;
        List<Path> directories = Segment.directories(place.tmpDirs());
        handshake = new Handshake(settings, inputType, outputType);
        List<AutoCloseable> opened = new ArrayList<>();
        try {
            input =
                    inputType == null
                            ? null
                            : new InputSide(settings, inputType, directories, new InputPort());
            opened.add(input);
            output =
                    outputType == null
                            ? null
                            : new OutputSide(
                                    settings, outputType, directories, place.socketPath(), listener);
            opened.add(output);
            io = QueueIo.open(place.socketPath(), place.name(), new Mails());
        } catch (RuntimeException e) {
            closeAll(opened, e);
            throw e;
        }
    }

    /**
     * Creates the segments (blocks while they are written with zeros) and listens on the socket.
     *
     * @param inputType rows to the process; null if the role has no input
     * @param outputType rows from the process; null if the role has no output
     * @throws UnsupportedTypeException if a column has a type that cannot travel
     * @throws ExchangeException if there is no room for the segments, or the socket cannot be bound
     */
    public static MemoryQueue open(
            ExchangeSettings settings,
            RowType inputType,
            RowType outputType,
            QueuePlace place,
            TaskHooks task,
            QueueListener listener) {
        return new MemoryQueue(settings, inputType, outputType, place, task, listener);
    }

    /**
     * Hands a row over; the row may be reused afterwards. Waits while no slot is free.
     *
     * <p>Not reentrant. Once the process has said END rows are dropped and counted.
     *
     * @throws RowTooLargeException if the row is over `exchange.max_row_bytes`
     * @throws PeerLostException if the process was lost and nobody failed the task with the cause
     * @throws InterruptedException if the task is cancelled
     */
    public void write(RowData row, boolean hasTimestamp, long timestamp)
            throws InterruptedException {
        if (isEndWritten) {
            throw new IllegalStateException("a row after the end of the input");
        }
        requireInput().write(row, hasTimestamp, timestamp);
    }

    /** Sends the rows written so far without waiting for more. */
    public void flush() {
        if (input != null) {
            input.flush();
        }
    }

    /** Sends a watermark behind the rows written so far. */
    public void writeWatermark(long timestamp) {
        flush();
        if (!isProcessDone) {
            send(Frame.of(FrameType.WATERMARK, timestamp));
        }
    }

    /**
     * Sends a checkpoint barrier behind the rows written so far.
     *
     * @return false if the process has said END, so that no acknowledgement will come
     */
    public boolean writeBarrier(long checkpointId) {
        flush();
        if (isProcessDone) {
            return false;
        }
        send(Frame.of(FrameType.BARRIER, checkpointId));
        return true;
    }

    /** Says that the input is used up. Idempotent. */
    public void writeEnd() {
        if (isEndWritten) {
            return;
        }
        flush();
        isEndWritten = true;
        if (!isProcessDone) {
            send(Frame.of(FrameType.END, 0));
        }
    }

    /** True once a process has connected and mapped the segments, until it is lost. */
    public boolean isConnected() {
        return channel != null && isMapped;
    }

    /** True once the process has said END. */
    public boolean isProcessDone() {
        return isProcessDone;
    }

    /** Rows handed to the process. Any thread. */
    public long rowsIn() {
        return input == null ? 0 : input.rows();
    }

    /** Bytes of the rows handed to the process. Any thread. */
    public long bytesIn() {
        return input == null ? 0 : input.bytes();
    }

    /** Rows that came after the process had said END and were dropped. Any thread. */
    public long discardedRows() {
        return input == null ? 0 : input.discardedRows();
    }

    /** Rows that the process emitted. Any thread. */
    public long rowsOut() {
        return output == null ? 0 : output.rows();
    }

    /** Bytes of the messages that the process emitted. Any thread. */
    public long bytesOut() {
        return output == null ? 0 : output.bytes();
    }

    /** Closes connection, IO thread and segments. Idempotent; bounded; not from a listener. */
    @Override
    public void close() {
        if (isClosed) {
            return;
        }
        isClosed = true;
        List<AutoCloseable> opened = new ArrayList<>();
        opened.add(input);
        opened.add(output);
        opened.add(io);
        closeAll(opened, null);
    }

    private static void closeAll(List<AutoCloseable> opened, RuntimeException before) {
        RuntimeException first = before;
        for (int i = opened.size() - 1; i >= 0; i--) {
            try {
                if (opened.get(i) != null) {
                    opened.get(i).close();
                }
            } catch (Exception e) {
                if (first == null) {
                    first = new ExchangeException("The memory queue could not be closed.", e);
                } else {
                    first.addSuppressed(e);
                }
            }
        }
        if (first != null && before == null) {
            throw first;
        }
    }

    private InputSide requireInput() {
        if (input == null) {
            throw new IllegalStateException("a row for a role without input");
        }
        return input;
    }

    private void send(Frame frame) {
        outbox.add(frame);
        if (channel != null) {
            channel.flush();
        }
    }

    private void handleAccepted(int number, FrameChannel accepted) throws Exception {
        if (input != null && number > 1) {
            LOG.warn("A second process connected to a role with input; its connection is closed.");
            accepted.close();
            return;
        }
        connection = number;
        channel = accepted;
        handshake.reset();
        isMapped = false;
        isProcessDone = false;
        lostCause = null;
    }

    private void handleFrame(int number, Frame frame) throws Exception {
        if (number != connection || channel == null || isClosed) {
            return; // of a connection that is gone
        }
        try {
            dispatch(frame);
        } catch (MalformedMessageException e) {
            handleLost(number, e);
        }
    }

    private void dispatch(Frame frame) throws Exception {
        boolean isHandshake = frame.type() == FrameType.HELLO || frame.type() == FrameType.MAPPED;
        MessageMetadata.require(
                isHandshake != isMapped && !isProcessDone, "frame %s out of order", frame.type());
        switch (frame.type()) {
            case HELLO:
                Segment in = input == null ? null : input.segment();
                Segment out = output == null ? null : output.openSegment();
                channel.sendFirst(handshake.answer(frame, in, out));
                break;
            case MAPPED:
                onMapped();
                break;
            case BATCH:
                requireOutput().onBatch(frame);
                send(Frame.of(FrameType.CREDIT, frame.value()));
                break;
            case OVERSIZE:
                requireOutput().onOversize(frame);
                send(Frame.of(FrameType.OVERSIZE_CREDIT, 0));
                break;
            case CREDIT:
                requireInput(frame).onCredit(frame.value());
                break;
            case OVERSIZE_CREDIT:
                requireInput(frame).onOversizeCredit();
                break;
            case WATERMARK:
                listener.onWatermark(frame.value());
                break;
            case BARRIER_ACK:
                listener.onBarrierAck(frame.value());
                break;
            case END:
                onEnd();
                break;
            default:
                MessageMetadata.require(false, "frame %s, which only the JVM sends", frame.type());
        }
    }

    private void onMapped() {
        handshake.requireAnswered();
        if (input != null) {
            input.segment().unlink();
        }
        if (output != null) {
            output.segment().unlink();
        }
        isMapped = true;
        channel.attach(outbox);
        listener.onConnected(handshake.attempt(), handshake.pid());
        if (input != null) {
            input.onConnected();
        }
    }

    private void onEnd() throws Exception {
        isProcessDone = true;
        if (input != null) {
            input.discard();
        }
        listener.onOutputEnd();
    }

    private OutputSide requireOutput() {
        MessageMetadata.require(output != null, "a batch of a role without output");
        return output;
    }

    private InputSide requireInput(Frame frame) {
        MessageMetadata.require(input != null, "%s for a role without input", frame.type());
        return input;
    }

    private void handleLost(int number, Throwable cause) throws Exception {
        if (number != connection || channel == null || isClosed) {
            return;
        }
        closeChannel();
        if (input == null) {
            outbox = new FrameOutbox(); // what was for this process is not for the next one
        }
        if (output != null) {
            output.removeLeftovers();
        }
        if (isProcessDone) {
            return; // it said so before
        }
        lostCause = cause;
        isMapped = false;
        task.timers()
                .registerTimer(
                        task.timers().getCurrentProcessingTime() + LOST_GRACE_MS,
                        time -> isGraceOver = true);
        listener.onConnectionLost(
                cause instanceof MalformedMessageException
                        ? cause
                        : new PeerLostException(
                                "The algorithm process closed its connection to the memory queue"
                                        + " without saying END.",
                                cause));
    }

    private void closeChannel() {
        try {
            channel.close();
        } catch (IOException e) {
            LOG.debug("Closing the connection failed", e);
        }
        channel = null;
    }

    /** Hands what the IO thread sees to the task thread. */
    private final class Mails implements QueueIo.Events {

        @Override
        public void onAccepted(int number, FrameChannel accepted) {
            task.mailbox().execute(() -> handleAccepted(number, accepted), "headrace: accepted");
        }

        @Override
        public void onFrame(int number, Frame frame) {
            task.mailbox()
                    .execute(
                            () -> {
                                io.frameHandled();
                                handleFrame(number, frame);
                            },
                            "headrace: frame");
        }

        @Override
        public void onLost(int number, Throwable cause) {
            task.mailbox().execute(() -> handleLost(number, cause), "headrace: connection lost");
        }

        @Override
        public void onBroken(Throwable cause) {
            task.mailbox()
                    .execute(
                            () -> {
                                throw new ExchangeException("The IO thread failed.", cause);
                            },
                            "headrace: IO thread failed");
        }
    }

    /** What the input side needs of the queue. */
    private final class InputPort implements InputSide.Port {

        @Override
        public void await(String waitedFor) throws InterruptedException {
            if (lostCause != null && isGraceOver) {
                throw new PeerLostException(
                        String.format(
                                "The algorithm process was lost while a row waited for %s, and"
                                        + " nothing ended the task within %d ms.",
                                waitedFor, LOST_GRACE_MS),
                        lostCause);
            }
            task.onBlocked().run();
            try {
                task.mailbox().yield();
            } finally {
                task.onUnblocked().run();
            }
        }

        @Override
        public void send(Frame frame) {
            MemoryQueue.this.send(frame);
        }

        @Override
        public boolean isConnected() {
            return MemoryQueue.this.isConnected();
        }

        @Override
        public void scheduleLinger(long delayMs) {
            task.timers()
                    .registerTimer(
                            nowMs() + delayMs,
                            time -> {
                                if (!isClosed) {
                                    input.onLinger();
                                }
                            });
        }

        @Override
        public long nowMs() {
            return task.timers().getCurrentProcessingTime();
        }
    }
}
