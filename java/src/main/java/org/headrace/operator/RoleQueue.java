package org.headrace.operator;

import org.apache.flink.runtime.execution.Environment;
import org.apache.flink.runtime.metrics.TimerGauge;
import org.apache.flink.streaming.api.operators.StreamOperatorParameters;
import org.apache.flink.streaming.runtime.watermarkstatus.WatermarkStatus;
import org.apache.flink.table.data.RowData;

import org.headrace.exchange.MemoryQueue;
import org.headrace.exchange.QueueListener;
import org.headrace.exchange.QueuePlace;
import org.headrace.exchange.StateFile;
import org.headrace.exchange.TaskHooks;
import org.headrace.plan.ClusterPlan;
import org.headrace.plan.RolePlan;
import org.headrace.plan.Timeouts;
import org.headrace.process.MailboxWait;
import org.headrace.process.PythonProcessException;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

import java.io.IOException;
import java.nio.file.Path;
import java.time.Duration;
import java.util.Arrays;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;

/**
 * The memory queue of one role subtask with the operator's rules around it: what happens to rows when
 * the process has ended its part, and when it was lost.
 *
 * <p>Thread model: task thread only; the waits yield to mails.
 */
final class RoleQueue implements QueueListener, AutoCloseable {

    private static final Logger LOG = LoggerFactory.getLogger(RoleQueue.class);

    private final RolePlan role;
    private final Timeouts timeouts;
    private final String label;
    private final MailboxWait wait;
    private final RoleMetrics metrics;
    private final RoleOutput output;
    private final TimeInProcess time;
    private final RoleState state;
    private final Path socketPath;
    private final MemoryQueue queue;
    private final boolean isOneOfSeveral;

    private boolean isConnected;
    private boolean hasRows;
    private boolean hasEnded;
    private boolean isOutputEnded;
    private boolean isProcessFinished;
    private boolean isStopping;
    private Throwable lost;
    private CompletableFuture<Void> lostTimer;
    private Exception failure;
    private long writtenBarrier = Long.MIN_VALUE;
    private long handledBarrier = Long.MIN_VALUE;
    private long declinedBarrier = Long.MIN_VALUE;
    private final AbortedCheckpoints aborted = new AbortedCheckpoints(); // from the latest barrier on

    RoleQueue(
            ClusterPlan cluster,
            RolePlan role,
            RoleNode node,
            StreamOperatorParameters<RowData> parameters,
            MailboxWait wait,
            RoleMetrics metrics,
            RoleOutput output,
            RoleState state,
            boolean hasMaster)
            throws IOException {
        this.role = role;
        this.wait = wait;
        this.metrics = metrics;
        this.output = output;
        time = new TimeInProcess(output);
        this.state = state;
        timeouts = cluster.timeouts();
        label = node.label();
        socketPath = node.workDir().socketPath();
        Environment environment = parameters.getContainingTask().getEnvironment();
        int processes = environment.getTaskInfo().getNumberOfParallelSubtasks();
        isOneOfSeveral = hasMaster && role.inputType() != null && processes > 1;
        List<Path> tmpDirs =
                Arrays.stream(environment.getTaskManagerInfo().getTmpDirectories()).map(Path::of).toList();
        TimerGauge blocked = environment.getMetricGroup().getIOMetricGroup().getHardBackPressuredTimePerSecond();
        queue =
                MemoryQueue.open(
                        role.exchange(),
                        role.inputType(),
                        role.outputType(),
                        new QueuePlace(socketPath, tmpDirs, node.title()),
                        new TaskHooks(
                                parameters.getMailboxExecutor(),
                                parameters.getProcessingTimeService(),
                                blocked::markStart,
                                blocked::markEnd),
                        this);
        metrics.addBytes(queue::bytesIn, queue::bytesOut);
        state.bind(queue::giveBack);
    }

    Path socketPath() {
        return socketPath;
    }

    void write(RowData row, boolean hasTimestamp, long timestamp) throws InterruptedException {
        if (isProcessDone()) {
            metrics.rowsDiscarded().inc();
            return;
        }
        if (lost != null) { // ends with the task's cancellation, the timer's failure, or an orderly stop
            wait.until(() -> lost == null);
            if (isProcessDone()) {
                metrics.rowsDiscarded().inc();
                return;
            }
        }
        hasRows = true;
        metrics.rowsIn().inc();
        queue.write(row, hasTimestamp, timestamp);
    }

    /** Sends a watermark through the process; past it once the process has ended its part. */
    void writeWatermark(long timestamp) {
        if (isProcessDone()) {
            output.emitWatermark(timestamp);
            return;
        }
        time.onWatermark(timestamp);
        if (lost == null) {
            queue.writeWatermark(timestamp);
        }
    }

    void writeEnd() {
        hasEnded = true;
        if (!isProcessDone() && lost == null) {
            queue.writeEnd();
        }
    }

    /**
     * Sends a barrier and waits until the process has handled everything before it. A process that is
     * still starting is first given the time that it may take to gather and start; {@link #whyLate} names these
     * limits. Once the process is lost this waits for the failure of the task. A process that is as it was
     * started is not asked; see {@link #isUntouched}.
     *
     * @return why the checkpoint must not complete; empty if all rows before it were handled, or if it
     *     was aborted meanwhile
     */
    Optional<String> awaitHandled(long checkpointId) throws InterruptedException {
        aborted.forgetBefore(checkpointId);
        if (isProcessDone() || isUntouched()) {
            return Optional.empty();
        }
        if (lost == null && queue.writeBarrier(checkpointId)) {
            writtenBarrier = checkpointId;
            Duration start = timeouts.gather().plus(timeouts.processStart());
            wait.until(() -> isConnected || isReleased(checkpointId), start);
            if (!wait.until(() -> isReleased(checkpointId), timeouts.checkpointHold())) {
                return Optional.of(whyLate(isConnected, timeouts));
            }
            if (declinedBarrier == checkpointId) {
                return Optional.of(
                        "shares no step with the others at which all have handled the rows before the barrier:"
                                + " ctx.data_parallel was called behind it in one of them, before it in another");
            }
        }
        // No reason to decline: Flink may fail the job for that, and then not for what ended the process.
        wait.until(() -> lost == null || aborted.contains(checkpointId));
        return Optional.empty();
    }

    /** The process is told, if it may be waiting at that barrier; its state of that place is not kept. */
    void onCheckpointAborted(long checkpointId) {
        aborted.add(checkpointId);
        state.onCheckpointAborted(checkpointId);
        if (writtenBarrier == checkpointId && handledBarrier < checkpointId && lost == null) {
            queue.writeAbort(checkpointId);
        }
    }

    /** The process is told of those for which it has answered the barrier itself. */
    void onCheckpointComplete(long checkpointId) {
        if (checkpointId <= writtenBarrier && checkpointId <= handledBarrier && isConnected && !isProcessDone()) {
            queue.writeComplete(checkpointId);
        }
    }

    /**
     * Whether the process is as it was started: it has had no row, and not the end behind which it may emit
     * some; it has no state to go on from, such as passes over rows that it has; and it is not one of several
     * in an ML cluster, which may train in common, and answer together.
     */
    boolean isUntouched() {
        boolean mayEmit = hasEnded && role.outputType() != null;
        return !hasRows && !mayEmit && !isOneOfSeveral && !state.hasRestored();
    }

    /** The process is about to be stopped: its loss is no failure from here on. */
    void onStop() {
        isStopping = true;
        cancelLostTimer();
    }

    /**
     * The node says that the process has ended with success, or that the master has stopped it; its last
     * frames may still be on the way.
     */
    void onProcessFinished() {
        isProcessFinished = true;
        cancelLostTimer();
        if (!isConnected) {
            time.release();
        }
        if (role.inputType() != null) {
            queue.discardInput();
        }
    }

    /** The node says how the process failed; told if the master does not fail the job for it. */
    void onProcessFailed(Exception cause) {
        failure = cause;
    }

    /**
     * An idle or active data input. Idleness must not overtake rows and watermarks that are still in the
     * process, so a marker goes through the queue behind them; see {@link #onBarrierAck}.
     */
    void onStatus(WatermarkStatus status) {
        if (status.isActive() || isProcessDone() || !hasRows) {
            time.pass(status);
            return;
        }
        long marker = time.hold(status);
        if (lost == null) {
            queue.writeBarrier(marker);
        }
    }

    /** Whether nothing more will come out of the queue. */
    boolean isOver() {
        return isOutputEnded || lost != null || !isConnected;
    }

    /** Whether the process has ended its part: what still comes in is discarded. */
    boolean isProcessDone() {
        return isOutputEnded || isStopping || queue.isProcessDone() || (isProcessFinished && !isConnected);
    }

    @Override
    public void close() {
        cancelLostTimer();
        queue.close();
    }

    @Override
    public void onConnected(int attempt, long pid) {
        isConnected = true;
        isOutputEnded = false;
        isProcessFinished = false;
        lost = null;
    }

    @Override
    public void onRow(RowData row, boolean hasTimestamp, long timestamp) {
        output.emit(row, hasTimestamp, timestamp);
    }

    @Override
    public void onWatermark(long timestamp) {
        output.emitWatermark(timestamp);
    }

    @Override
    public void onBarrierAck(long checkpointId, StateFile offered) {
        if (offered != null) {
            state.onHandled(checkpointId, offered);
        }
        handledBarrier = Math.max(handledBarrier, checkpointId);
        time.onAnswer(checkpointId);
    }

    @Override
    public void onBarrierDeclined(long checkpointId) {
        declinedBarrier = checkpointId;
    }

    @Override
    public void onOutputEnd() {
        isOutputEnded = true;
        state.onProcessEnd();
        time.release();
    }

    /**
     * Without input, the master may start the process again. With input, rows are lost with it: the
     * master fails the job with the cause; only if it does not, this task fails by itself.
     */
    @Override
    public void onConnectionLost(Throwable cause) {
        isConnected = false;
        if (role.inputType() == null) {
            return;
        }
        if (isStopping || isProcessFinished || isOutputEnded) {
            time.release();
            return;
        }
        LOG.warn("{} lost its process; waiting for the master to fail the job with the cause", label, cause);
        lost = cause;
        lostTimer =
                wait.after(
                        timeouts.stop(),
                        () -> {
                            if (lost != null) {
                                throw lostFailure();
                            }
                        });
    }

    private Exception lostFailure() {
        if (failure != null) {
            return failure;
        }
        return new PythonProcessException(
                String.format(
                        "The process of %s ended without saying so, and nothing has failed the job for that within"
                                + " %s (limit set by `timeouts.stop_timeout_s`).",
                        label, Timeouts.text(timeouts.stop())),
                lost);
    }

    private boolean isReleased(long checkpointId) {
        return handledBarrier >= checkpointId
                || declinedBarrier == checkpointId
                || aborted.contains(checkpointId)
                || isProcessDone()
                || lost != null;
    }

    /** What is told of a process that has not answered a barrier in time. */
    static String whyLate(boolean isConnected, Timeouts timeouts) {
        Duration hold = timeouts.checkpointHold();
        if (isConnected) {
            return String.format(
                    "had not handled the rows before the barrier after %s (limit set by"
                            + " `timeouts.checkpoint_hold_timeout_s`)",
                    Timeouts.text(hold));
        }
        return String.format(
                "had not connected to the memory queue after %s (limits set by `timeouts.gather_timeout_s`,"
                        + " `timeouts.process_start_timeout_s` and `timeouts.checkpoint_hold_timeout_s`, which"
                        + " follow each other)",
                Timeouts.text(timeouts.gather().plus(timeouts.processStart()).plus(hold)));
    }

    private void cancelLostTimer() {
        if (lostTimer != null) {
            lostTimer.cancel(false);
            lostTimer = null;
            lost = null;
        }
    }
}
