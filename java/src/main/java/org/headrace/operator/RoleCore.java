package org.headrace.operator;

import org.apache.flink.api.common.TaskInfo;
import org.apache.flink.api.common.state.BroadcastState;
import org.apache.flink.api.common.state.MapStateDescriptor;
import org.apache.flink.api.common.typeutils.base.IntSerializer;
import org.apache.flink.api.common.typeutils.base.StringSerializer;
import org.apache.flink.runtime.checkpoint.CheckpointException;
import org.apache.flink.runtime.checkpoint.CheckpointFailureReason;
import org.apache.flink.runtime.execution.Environment;
import org.apache.flink.runtime.execution.SuppressRestartsException;
import org.apache.flink.runtime.jobgraph.OperatorID;
import org.apache.flink.runtime.jobgraph.tasks.TaskOperatorEventGateway;
import org.apache.flink.runtime.operators.coordination.CoordinationRequest;
import org.apache.flink.runtime.operators.coordination.CoordinationResponse;
import org.apache.flink.runtime.state.CheckpointStreamFactory;
import org.apache.flink.runtime.state.OperatorStateHandle;
import org.apache.flink.runtime.state.SnapshotResult;
import org.apache.flink.runtime.state.StateInitializationContext;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.node.ObjectNode;
import org.apache.flink.streaming.api.operators.OperatorSnapshotFutures;
import org.apache.flink.streaming.api.operators.StreamOperatorParameters;
import org.apache.flink.streaming.api.operators.StreamingRuntimeContext;
import org.apache.flink.streaming.api.watermark.Watermark;
import org.apache.flink.streaming.runtime.watermarkstatus.WatermarkStatus;
import org.apache.flink.table.data.RowData;
import org.apache.flink.util.FlinkRuntimeException;
import org.apache.flink.util.SerializedValue;
import org.apache.flink.util.StringUtils;

import org.headrace.am.AmRequest;
import org.headrace.am.InputEnded;
import org.headrace.json.Lines;
import org.headrace.plan.ClusterPlan;
import org.headrace.plan.RolePlan;
import org.headrace.plan.Timeouts;
import org.headrace.process.MailboxWait;
import org.headrace.process.PythonProcessException;
import org.headrace.process.TaskFacts;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

import java.io.IOException;
import java.time.Duration;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.RunnableFuture;

/**
 * What all role operators have in common: the node process, the queue to its algorithm process, and
 * the order in which they start and end.
 *
 * <p>Thread model: task thread only. Waits are mailbox yields: they can be interrupted, emit what the
 * process sends meanwhile, and are bounded by a setting or ended by the process's end.
 */
final class RoleCore implements RoleNode.ProcessListener, AutoCloseable {

    private static final Logger LOG = LoggerFactory.getLogger(RoleCore.class);

    private static final String PROCESSES = "processes";
    private static final MapStateDescriptor<String, Integer> WAS_HERE =
            new MapStateDescriptor<>("was-here", StringSerializer.INSTANCE, IntSerializer.INSTANCE);

    private final ClusterPlan cluster;
    private final RolePlan role;
    private final StreamOperatorParameters<RowData> parameters;
    private final Environment environment;
    private final MailboxWait wait;
    private final LatestMaster master = new LatestMaster();

    private StreamingRuntimeContext context;
    private OperatorID amOperator;
    private RoleMetrics metrics;
    private RoleOutput output;
    private RoleState state;
    private boolean isRestored;
    private Integer restoredParallelism; // null: not restored
    private SpareSupply spares;
    private RoleNode node;
    private RoleQueue queue;
    private boolean hasMaster;
    private boolean isProcessEnded;
    private boolean isFinished;

    RoleCore(ClusterPlan cluster, RolePlan role, StreamOperatorParameters<RowData> parameters) {
        this.cluster = cluster;
        this.role = role;
        this.parameters = parameters;
        environment = parameters.getContainingTask().getEnvironment();
        wait = new MailboxWait(parameters.getMailboxExecutor());
        state = new RoleState(role.role(), environment.getTaskInfo(), wait, false, List.of());
    }

    /**
     * Takes from a checkpoint what it holds for the process. Blocks for as long as that takes to copy.
     *
     * <p>Flink tells of a restore only tasks that get state from the checkpoint, so each always has some, also one
     * that is new because the parallelism has grown: broadcast state, of which each gets a copy. Not a union: with
     * one no checkpoint completes once one subtask has finished.
     */
    void restore(StateInitializationContext checkpoint) throws Exception {
        isRestored = checkpoint.isRestored();
        BroadcastState<String, Integer> wasHere = checkpoint.getOperatorStateStore().getBroadcastState(WAS_HERE);
        restoredParallelism = wasHere.get(PROCESSES);
        wasHere.put(PROCESSES, environment.getTaskInfo().getNumberOfParallelSubtasks());
        state =
                RoleState.restore(
                        role.role(), environment, wait, isRestored, checkpoint.getRawOperatorStateInputs());
    }

    /** Opens the queue and starts the node in the background; {@link #restore} comes before. */
    void open(StreamingRuntimeContext runtimeContext, boolean withMaster) throws Exception {
        requireEnough();
        context = runtimeContext;
        hasMaster = withMaster;
        metrics = new RoleMetrics(context.getMetricGroup());
        output = new RoleOutput(parameters.getOutput(), metrics.rowsOut());
        TaskFacts task = TaskFacts.of(environment, context);
        spares =
                hasMaster
                        ? SpareSupply.open(cluster, role, task, wait, context, environment.getJobConfiguration())
                        : null;
        node = new RoleNode(cluster, role, task, wait, metrics, spares, this);
        if (role.inputType() != null || role.outputType() != null) {
            queue = new RoleQueue(cluster, role, node, parameters, wait, metrics, output, state, hasMaster);
        }
        node.start(queue == null ? null : queue.socketPath(), hasMaster, isRestored, restoredParallelism, state.restored());
    }

    private void requireEnough() {
        int running = environment.getTaskInfo().getNumberOfParallelSubtasks();
        if (role.isLeastRequired() && running < role.leastParallelism()) {
            throw new SuppressRestartsException(
                    new FlinkRuntimeException(
                            String.format(
                                    "Flink started %s of the %s processes of role '%s' of '%s', which are all needed:"
                                            + " its adaptive scheduler takes one for enough where a training is"
                                            + " planned in SQL. Offer a task slot for each, plan fewer of them, or"
                                            + " let it wait longer for slots"
                                            + " (`jobmanager.adaptive-scheduler.submission.resource-wait-timeout`).",
                                    running, role.leastParallelism(), role.role(), cluster.name())));
        }
    }

    /** A record of the control stream, by either of its ways. */
    void onControl(String record) {
        if (!master.accept(record)) {
            return;
        }
        ObjectNode said = Lines.parse(record);
        if (spares != null && said.path("is_stream").asBoolean()) {
            spares.onStreamMode();
        }
        String hex = Lines.requireText(said, "am_operator");
        amOperator = new OperatorID(StringUtils.hexStringToByte(hex));
        node.onControl(record);
    }

    /** Hands a row to the process; discards it once the process has ended its part. */
    void write(RowData row, boolean hasTimestamp, long timestamp) throws InterruptedException {
        queue.write(row, hasTimestamp, timestamp);
    }

    /** A watermark of the data input: goes through the process, and only if the role has an output. */
    void onWatermark(long timestamp) {
        if (role.outputType() != null) {
            queue.writeWatermark(timestamp);
        }
    }

    void onWatermarkStatus(WatermarkStatus status) {
        if (role.outputType() != null) {
            queue.onStatus(status);
        }
    }

    /** The data input is used up: the process is told, and goes on as long as it likes. */
    void onInputEnd() throws IOException {
        queue.writeEnd();
        if (amOperator != null) {
            TaskInfo task = context.getTaskInfo();
            InputEnded ended =
                    new InputEnded(
                            master.deployment(),
                            role.role(),
                            task.getIndexOfThisSubtask(),
                            task.getNumberOfParallelSubtasks());
            TaskOperatorEventGateway gateway = environment.getOperatorCoordinatorEventGateway();
            new InputEndReport(gateway, amOperator, wait, ended, () -> !node.isStopRequested()).send();
        }
    }

    /** Waits, without limit but the process's end, until it has emitted its last row. */
    void awaitOutputEnd() throws InterruptedException {
        wait.until(() -> queue.isProcessDone() || node.isGone());
    }

    /** The master has ended the cluster, or a drain has ended everything. */
    void onControlEnd() {
        node.requestStop("the ML cluster has ended");
        if (queue != null) {
            queue.onStop();
        }
    }

    /**
     * Waits until the process has handled all rows before a barrier. On time-out that checkpoint is
     * declined; the task goes on.
     */
    void onBarrier(long checkpointId) throws InterruptedException {
        if (queue == null || isFinished) {
            return;
        }
        Optional<String> obstacle = queue.awaitHandled(checkpointId);
        if (obstacle.isEmpty()) {
            return;
        }
        String text =
                String.format(
                        "Checkpoint %s: the process of %s %s. Flink fails the job if more checkpoints are declined"
                                + " than `execution.checkpointing.tolerable-failed-checkpoints` allows.",
                        checkpointId, node.label(), obstacle.get());
        LOG.warn("{} The checkpoint is declined.", text);
        CheckpointException cause = new CheckpointException(text, CheckpointFailureReason.CHECKPOINT_DECLINED);
        state.onCheckpointDeclined(checkpointId, cause);
        environment.declineCheckpoint(checkpointId, cause);
    }

    /** Adds to a checkpoint what writes the state of the process into it, beside the task. */
    void snapshotState(long checkpointId, CheckpointStreamFactory factory, OperatorSnapshotFutures futures)
            throws Exception {
        if (queue == null) {
            return;
        }
        try {
            RunnableFuture<SnapshotResult<OperatorStateHandle>> written =
                    state.snapshot(
                            checkpointId,
                            queue.isUntouched(),
                            factory,
                            parameters.getContainingTask().getCancelables());
            if (written != null) {
                futures.setOperatorStateRawFuture(written);
            }
        } catch (Exception e) {
            futures.cancel();
            throw e;
        }
    }

    /** Told to the process, and a time to see whether the next attempt should find a node that is ready. */
    void onCheckpointComplete(long checkpointId) {
        if (queue != null) {
            queue.onCheckpointComplete(checkpointId);
        }
        if (spares != null && !isFinished && !node.isStopRequested()) {
            spares.onCheckpointComplete();
        }
    }

    void onCheckpointAborted(long checkpointId) {
        if (queue != null) {
            queue.onCheckpointAborted(checkpointId);
        }
    }

    /** Waits for the orderly end of node and output, at most {@code timeouts.stop_timeout_s}. */
    void finish() throws InterruptedException {
        Duration limit = cluster.timeouts().stop();
        if (!hasMaster) { // nobody else tells when the process may be stopped
            wait.until(() -> isProcessEnded || node.isGone(), limit);
        }
        node.requestStop("all input was used up");
        if (!wait.until(() -> node.isGone() && (queue == null || queue.isOver()), limit)) {
            LOG.warn(
                    "{} did not end within {} (limit set by `timeouts.stop_timeout_s`); it is killed",
                    node.label(),
                    Timeouts.text(limit));
        }
        isFinished = true;
        if (role.outputType() != null) {
            output.emitWatermark(Watermark.MAX_WATERMARK.getTimestamp());
        }
    }

    /** Ends the node and everything below it, then the queue. Bounded; idempotent. */
    @Override
    public void close() {
        try {
            if (node != null) {
                node.close();
            }
        } finally {
            try {
                if (queue != null) {
                    queue.close();
                }
            } finally {
                state.close();
                if (spares != null) {
                    spares.close(isFinished);
                    spares = null;
                }
            }
        }
    }

    /**
     * A master that was started again has a new address. Its record waits in the control stream while this
     * task waits for the process to take rows, so the am's coordinator is asked.
     */
    @Override
    public void onMasterUnreachable() throws IOException {
        if (amOperator == null || node.isStopRequested() || !master.beginAsking()) {
            return;
        }
        AmRequest question = new AmRequest(AmRequest.Kind.MASTER, master.deployment());
        environment
                .getOperatorCoordinatorEventGateway()
                .sendRequestToCoordinator(amOperator, new SerializedValue<CoordinationRequest>(question))
                .whenComplete((answer, failure) -> wait.post(() -> onMasterAnswer(answer, failure), "headrace master"));
    }

    private void onMasterAnswer(CoordinationResponse answer, Throwable failure) {
        master.endAsking();
        if (failure != null) { // the node asks again for as long as it has no contact
            LOG.debug("The am's coordinator did not say where its master is", failure);
            return;
        }
        String record = AmRequest.text(answer);
        if (!record.isEmpty()) {
            onControl(master.complete(record));
        }
    }

    @Override
    public void onProcessEnded(RoleNode.Outcome outcome, String failure, boolean isRestartable) throws Exception {
        isProcessEnded = true;
        if (!hasMaster && outcome == RoleNode.Outcome.FAILED && !node.isStopRequested()) {
            throw PythonProcessException.of(failure, isRestartable);
        }
        if (queue == null) {
            return;
        }
        switch (outcome) {
            case FINISHED:
                queue.onProcessFinished();
                break;
            case STOPPED:
                if (role.inputType() != null) { // else the master may start it again
                    queue.onProcessFinished();
                }
                break;
            case FAILED:
                queue.onProcessFailed(PythonProcessException.of(failure, isRestartable));
                break;
            default:
                throw new IllegalStateException("unknown outcome " + outcome);
        }
    }
}
