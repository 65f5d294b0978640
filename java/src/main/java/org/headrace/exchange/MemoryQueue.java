package org.headrace.exchange;

import org.apache.flink.annotation.Internal;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.types.logical.RowType;

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
 * <p>Thread model: all methods on the task thread (or the one thread that owns the mailbox of the hooks),
 * but the counters on any. One IO thread of its own, which ends with {@link #close}. An exception from any method, or from a mail of the queue, fails
 * the task; the caller then closes the queue.
 */
@Internal
public final class MemoryQueue implements AutoCloseable {

    /**
     * How long a write that finds no free slot goes on waiting after the process was lost. A last
     * resort: the operator fails the task before that, with the real cause (a traceback).
     */
    public static final long LOST_GRACE_MS = 60_000;

    private final QueueConnection link;
    private final InputSide input; // null: the role has no input
    private final OutputSide output; // null: the role has no output

    private boolean isEndWritten;
    private boolean isClosed;

    private MemoryQueue(
            ExchangeSettings settings,
            RowType inputType,
            RowType outputType,
            QueuePlace place,
            TaskHooks task,
            QueueListener listener) {
        List<Path> directories = Segment.directories(place.tmpDirs());
        link = new QueueConnection(task, listener, new Handshake(settings, inputType, outputType));
        List<AutoCloseable> opened = new ArrayList<>();
        try {
            input =
                    inputType == null
                            ? null
                            : new InputSide(settings, inputType, directories, link);
            opened.add(input);
            output =
                    outputType == null
                            ? null
                            : new OutputSide(
                                    settings, outputType, directories, listener);
            opened.add(output);
            link.bind(input, output);
            link.listen(place);
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
        if (!link.isProcessDone()) {
            link.send(Frame.of(FrameType.WATERMARK, timestamp));
        }
    }

    /**
     * Sends a checkpoint barrier behind the rows written so far; a role without input has none.
     *
     * @return false if the process has said END, so that no acknowledgement will come
     */
    public boolean writeBarrier(long checkpointId) {
        requireInput().cut();
        if (link.isProcessDone()) {
            return false;
        }
        link.send(Frame.of(FrameType.BARRIER, checkpointId));
        return true;
    }

    /**
     * Lets the process write over a state file that it has offered. After END it says that the file is open
     * here, so that the process may go.
     */
    public void giveBack(StateFile state) {
        if (link.isConnected() && state.number().isPresent()) {
            link.send(Frame.of(FrameType.STATE_CREDIT, state.number().getAsInt()));
        }
    }

    /** Says that a checkpoint, whose barrier was written, will not complete. */
    public void writeAbort(long checkpointId) {
        if (!link.isProcessDone()) {
            link.send(Frame.of(FrameType.ABORT, checkpointId));
        }
    }

    /** Says that a checkpoint, whose barrier was acknowledged, has completed. */
    public void writeComplete(long checkpointId) {
        if (!link.isProcessDone()) {
            link.send(Frame.of(FrameType.COMPLETE, checkpointId));
        }
    }

    /** Drops rows from now on, also one that waits for a slot: the process takes no more. Idempotent. */
    public void discardInput() {
        if (input != null) {
            input.discard();
        }
    }

    /** Says that the input is used up. Idempotent. */
    public void writeEnd() {
        if (isEndWritten) {
            return;
        }
        flush();
        isEndWritten = true;
        if (!link.isProcessDone()) {
            link.send(Frame.of(FrameType.END, 0));
        }
    }

    /** True once a process has connected and mapped the segments, until it is lost. */
    public boolean isConnected() {
        return link.isConnected();
    }

    /** True once the process has said END. */
    public boolean isProcessDone() {
        return link.isProcessDone();
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
        opened.add(link::close);
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
            throw new IllegalStateException("a row or a barrier for a role without input");
        }
        return input;
    }
}
