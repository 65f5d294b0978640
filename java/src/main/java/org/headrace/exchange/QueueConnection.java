package org.headrace.exchange;

import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

import java.io.IOException;
import java.nio.file.Path;
import java.util.ArrayDeque;
import java.util.Deque;
import java.util.regex.Pattern;

/**
 * The connection to the process, as the task thread sees it: greeting, frames, loss.
 *
 * <p>Frames that are sent while no process is connected wait for it. Every mail carries the number of
 * its connection; what comes from one that is gone is ignored.
 *
 * <p>Nothing that the process says is trusted: what does not follow from the protocol ends the connection. It can
 * name no files but those that it holds open itself, and it answers barriers that were sent, each once, in their order.
 *
 * <p>Thread model: task thread, but for the methods of {@link QueueIo.Events}, which hand over to it.
 */
final class QueueConnection implements QueueIo.Events, InputSide.Port {

    /** The process acknowledges all later barriers with this id; docs/exchange.md section 3. */
    private static final long EVERY_BARRIER = Long.MAX_VALUE;

    private static final Logger LOG = LoggerFactory.getLogger(QueueConnection.class);
    private static final int MAX_UNTAKEN_FRAMES = 1 << 14;
    private static final Pattern DESCRIPTOR = Pattern.compile("[0-9]{1,10}");

    private final TaskHooks task;
    private final QueueListener listener;
    private final Handshake handshake;
    private InputSide input; // null: the role has no input
    private OutputSide output; // null: the role has no output
    private QueueIo io;

    private FrameOutbox outbox = new FrameOutbox();
    private final Deque<Long> unanswered = new ArrayDeque<>(); // barriers, in their order
    private int connection;
    private FrameChannel channel; // null: no process is connected
    private boolean isMapped;
    private boolean isProcessDone;
    private boolean isClosed;
    private Throwable lostCause; // null: not lost
    private boolean isGraceOver;

    QueueConnection(TaskHooks task, QueueListener listener, Handshake handshake) {
        this.task = task;
        this.listener = listener;
        this.handshake = handshake;
    }

    /** Completes the construction, before the IO thread starts; null: there is no such direction. */
    void bind(InputSide inputSide, OutputSide outputSide) {
        input = inputSide;
        output = outputSide;
    }

    /** Starts to listen for the process. */
    void listen(QueuePlace place) {
        io = QueueIo.open(place.socketPath(), place.name(), this);
    }

    /** Ends the IO thread and the connection; mails that are on the way do nothing any more. */
    void close() {
        isClosed = true;
        if (io != null) {
            io.close();
        }
    }

    boolean isProcessDone() {
        return isProcessDone;
    }

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

    @Override
    public void await(String waitedFor) throws InterruptedException {
        if (lostCause != null && isGraceOver) {
            throw new PeerLostException(
                    String.format(
                            "The algorithm process was lost while a row waited for %s, and"
                                    + " nothing ended the task within %d ms.",
                            waitedFor, MemoryQueue.LOST_GRACE_MS),
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
        if (frame.type() == FrameType.BARRIER) {
            unanswered.addLast(frame.value());
        }
        outbox.add(frame);
        if (channel != null) {
            channel.flush();
        }
    }

    @Override
    public boolean isConnected() {
        return channel != null && isMapped;
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
            MessageMetadata.require(
                    outbox.size() <= MAX_UNTAKEN_FRAMES,
                    "%s more, while it has not taken the last %s answers",
                    frame.type(),
                    MAX_UNTAKEN_FRAMES);
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
                requireOutput().onOversize(frame.value(), requireOpenFile(frame.path()));
                send(Frame.of(FrameType.OVERSIZE_CREDIT, 0));
                break;
            case CREDIT:
                requireInput(frame).onCredit(frame.value());
                break;
            case OVERSIZE_CREDIT:
                requireInput(frame).onOversizeCredit();
                break;
            case IDLE:
                requireInput(frame).onIdle(frame.value());
                break;
            case WATERMARK:
                listener.onWatermark(frame.value());
                break;
            case BARRIER_ACK:
                onBarrierAck(frame);
                break;
            case DECLINE:
                requireUnanswered(frame.value());
                listener.onBarrierDeclined(frame.value());
                break;
            case END:
                onEnd();
                break;
            default:
                MessageMetadata.require(false, "frame %s, which only the JVM sends", frame.type());
        }
    }

    private void onBarrierAck(Frame frame) throws Exception {
        StateOffer offer = frame.state();
        MessageMetadata.require(offer == null || frame.value() >= 0, "a state with the marker %s", frame.value());
        if (offer != null) {
            requireOpenFile(offer.path());
        }
        if (frame.value() != EVERY_BARRIER) {
            requireUnanswered(frame.value());
        }
        listener.onBarrierAck(frame.value(), offer == null ? null : StateFile.open(offer));
    }

    /** Takes the barrier off the list, with those before it, which the process has dropped. */
    private void requireUnanswered(long barrier) {
        MessageMetadata.require(unanswered.contains(barrier), "the answer to barrier %s, which waits for none", barrier);
        while (unanswered.removeFirst() != barrier) {
            continue;
        }
    }

    /** Returns the path if it is that of a file which the process says it holds open: other files are not its. */
    private Path requireOpenFile(Path path) {
        Path files = Path.of("/proc", String.valueOf(handshake.pid()), "fd");
        MessageMetadata.require(
                files.equals(path.getParent()) && DESCRIPTOR.matcher(path.getFileName().toString()).matches(),
                "%s, which is no open file of process %s",
                path,
                handshake.pid());
        return path;
    }

    private void onMapped() {
        handshake.requireAnswered();
        if (input != null) {
            input.segment().withdraw();
        }
        if (output != null) {
            output.segment().withdraw();
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
        if (isProcessDone) {
            return; // it said so before
        }
        lostCause = cause;
        isMapped = false;
        if (input != null) {
            task.timers()
                    .registerTimer(
                            nowMs() + MemoryQueue.LOST_GRACE_MS, time -> isGraceOver = true);
        }
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
}
