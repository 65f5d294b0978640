package org.headrace.am;

import org.apache.flink.runtime.checkpoint.CheckpointException;
import org.apache.flink.runtime.checkpoint.CheckpointFailureReason;
import org.apache.flink.runtime.jobgraph.OperatorID;
import org.apache.flink.runtime.operators.coordination.CoordinationRequest;
import org.apache.flink.runtime.operators.coordination.CoordinationResponse;
import org.apache.flink.runtime.operators.coordination.OperatorEventGateway;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.JsonNode;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.node.MissingNode;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.node.ObjectNode;
import org.apache.flink.streaming.api.operators.AbstractStreamOperator;
import org.apache.flink.streaming.api.operators.BoundedOneInput;
import org.apache.flink.streaming.api.operators.OneInputStreamOperator;
import org.apache.flink.streaming.api.operators.StreamOperatorParameters;
import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;
import org.apache.flink.util.SerializedValue;

import org.headrace.json.Lines;
import org.headrace.plan.ClusterPlan;
import org.headrace.plan.PlannedRole;
import org.headrace.plan.Timeouts;
import org.headrace.process.ChildExit;
import org.headrace.process.ChildHome;
import org.headrace.process.ChildProcess;
import org.headrace.process.MailboxWait;
import org.headrace.process.PythonProcessException;
import org.headrace.process.TaskFacts;

import java.io.IOException;
import java.security.SecureRandom;
import java.time.Duration;
import java.util.HexFormat;
import java.util.Map;

/**
 * Owns the master process and writes the control stream: docs/lifecycle.md, sections 1 and 2.
 *
 * <p>Thread model: everything runs on the task thread; what the master says comes as mails. A failure
 * that the master reports, or a master that is lost too often, fails the task and with it all roles.
 */
final class AmOperator extends AbstractStreamOperator<String>
        implements OneInputStreamOperator<String, String>, BoundedOneInput {

    private static final long serialVersionUID = 1L;
    private static final int TOKEN_BYTES = 24;

    private final transient ClusterPlan cluster;
    private final transient byte[] payload;
    private final transient Map<String, PlannedRole> plannedRoles;
    private final transient StatusAccumulator lastStatus = new StatusAccumulator();
    private final transient MailboxWait wait;
    private final transient OperatorID operatorId;
    private final transient OperatorEventGateway coordinator;

    private transient ChildHome home;
    private transient ChildProcess master;
    private transient String token;
    private transient String sourceExecution;
    private transient int attempt;
    private transient int restarts;
    private transient int masterRestarts;
    private transient boolean isAddressEmitted;
    private transient boolean isFinished;
    private transient boolean isEndSent;
    private transient boolean isMasterGone;
    private transient JsonNode nodes = MissingNode.getInstance();

    AmOperator(
            StreamOperatorParameters<String> parameters,
            ClusterPlan cluster,
            byte[] payload,
            Map<String, PlannedRole> plannedRoles) {
        super(parameters);
        this.plannedRoles = plannedRoles;
        this.cluster = cluster;
        this.payload = payload;
        wait = new MailboxWait(parameters.getMailboxExecutor());
        operatorId = parameters.getStreamConfig().getOperatorID();
        coordinator = parameters.getOperatorEventDispatcher().getOperatorEventGateway(operatorId);
    }

    @Override
    public void open() throws Exception {
        super.open();
        byte[] secret = new byte[TOKEN_BYTES];
        new SecureRandom().nextBytes(secret);
        token = HexFormat.of().formatHex(secret);
        home =
                new ChildHome(
                        cluster,
                        "am",
                        specWithRoles(),
                        payload,
                        null,
                        TaskFacts.of(getContainingTask().getEnvironment(), getRuntimeContext()));
        getRuntimeContext().addAccumulator("headrace.status." + cluster.amUid(), lastStatus);
        askFirstAttempt();
    }

    @Override
    public void processElement(StreamRecord<String> element) {
        sourceExecution = element.getValue();
        endSourceIfFinished();
    }

    /**
     * The source has ended: because the master has said so, or because a stop with drain ended it. In the
     * second case the nodes' inputs end too, and the master gets time to see its cluster end: as long as
     * nodes get on, and then a bounded one.
     */
    @Override
    public void endInput() throws Exception {
        awaitEndOfCluster();
        if (master != null) {
            master.requestStop("the ML cluster has ended");
            wait.until(() -> isMasterGone, cluster.timeouts().stop());
        }
    }

    /**
     * Holds a barrier back until the control stream has its first record. Role operators read
     * nothing else before that record, so a barrier in front of it would block them.
     */
    @Override
    public void prepareSnapshotPreBarrier(long checkpointId) throws Exception {
        Duration limit = cluster.timeouts().gather();
        if (!wait.until(() -> isAddressEmitted || isFinished || isMasterGone, limit)) {
            String text =
                    String.format(
                            "The master of cluster '%s' did not listen within %s (limit set by"
                                    + " `timeouts.gather_timeout_s`).",
                            cluster.name(), Timeouts.text(limit));
            getContainingTask()
                    .getEnvironment()
                    .declineCheckpoint(
                            checkpointId, new CheckpointException(text, CheckpointFailureReason.CHECKPOINT_DECLINED));
        }
    }

    @Override
    public void close() throws Exception {
        try {
            if (home != null) {
                home.close();
            }
        } finally {
            super.close();
        }
    }

    private void awaitEndOfCluster() throws InterruptedException {
        Timeouts timeouts = cluster.timeouts();
        while (!isFinished && !isMasterGone) {
            DrainProgress before = DrainProgress.of(nodes, plannedRoles);
            boolean isStarting = before.isStarting() && timeouts.processStart().compareTo(timeouts.stop()) > 0;
            Duration limit = isStarting ? timeouts.processStart() : timeouts.stop();
            if (!wait.until(
                    () -> isFinished || isMasterGone || !before.equals(DrainProgress.of(nodes, plannedRoles)),
                    limit)) {
                LOG.warn(
                        "The input was drained, and no process has taken a batch, stepped, reported or ended for {}"
                                + " (limit set by `timeouts.{}`); the nodes are stopped",
                        Timeouts.text(limit),
                        isStarting ? "process_start_timeout_s" : "stop_timeout_s");
                return;
            }
        }
    }

    /** The master's spec as planned; the roles came after the am. */
    private String specWithRoles() {
        ObjectNode spec = Lines.parse(cluster.amSpecJson());
        ObjectNode roles = spec.putObject("roles");
        plannedRoles.forEach(
                (name, role) ->
                        roles.putObject(name)
                                .put("planned_parallelism", role.parallelism())
                                .put("has_input", role.hasInput()));
        return spec.toString();
    }

    private void askFirstAttempt() throws IOException {
        AmRequest question =
                new AmRequest(AmRequest.Kind.FIRST_ATTEMPT, getRuntimeContext().getTaskInfo().getAttemptNumber());
        getContainingTask()
                .getEnvironment()
                .getOperatorCoordinatorEventGateway()
                .sendRequestToCoordinator(operatorId, new SerializedValue<CoordinationRequest>(question))
                .whenComplete((answer, failure) -> wait.post(() -> onFirstAttempt(answer, failure), "headrace attempt"));
    }

    private void onFirstAttempt(CoordinationResponse answer, Throwable failure) throws IOException {
        if (failure != null) {
            throw new IOException("The am's coordinator in the JobManager did not answer", failure);
        }
        attempt = Integer.parseInt(AmRequest.text(answer));
        startMaster();
    }

    private void startMaster() {
        int restart = masterRestarts;
        ObjectNode line =
                home.startLineWithMaster().put("token", token).put("attempt", attempt).put("restarts", restarts);
        master =
                home.start(
                        cluster.masterModule(),
                        line,
                        new ChildProcess.Listener() {
                            @Override
                            public void onLine(ObjectNode said) {
                                wait.post(() -> onMasterLine(restart, said), "headrace master line");
                            }

                            @Override
                            public void onExit(ChildExit exit) {
                                wait.post(() -> onMasterExit(exit), "headrace master exit");
                            }
                        });
    }

    private void onMasterLine(int restart, ObjectNode line) throws Exception {
        String type = Lines.requireText(line, "type");
        boolean isOfFormer = restart < masterRestarts; // it has ended, and its last words came late
        switch (type) {
            case "listening":
                if (!isOfFormer) {
                    emitAddress(Lines.requireText(line, "address"));
                }
                break;
            case "status":
                if (isOfFormer) {
                    break; // the master after it knows more
                }
                attempt = Math.max(attempt, line.path("status").path("attempt").asInt(0));
                restarts = Math.max(restarts, line.path("status").path("restarts").asInt(0));
                nodes = line.path("status").path("nodes");
                lastStatus.add(line.path("status").toString());
                coordinator.sendEventToCoordinator(new AmEvents.StatusChanged(lastStatus.getLocalValue()));
                break;
            case "fail":
                throw PythonProcessException.of(
                        Lines.requireText(line, "message"), line.path("is_restartable").asBoolean(true));
            case "finish":
                LOG.info("The ML cluster '{}' has ended: {}", cluster.name(), line.path("reason").asText());
                isFinished = true;
                endSourceIfFinished();
                break;
            default:
                throw new IllegalStateException("The master sent a line of unknown type '" + type + "'");
        }
    }

    private void emitAddress(String address) {
        ObjectNode control =
                Lines.ofType("master")
                        .put("address", address)
                        .put("tls_name", home.tlsName())
                        .put("attempt", attempt)
                        .put("am_operator", operatorId.toHexString())
                        .put("is_stream", plannedRoles.values().stream().anyMatch(PlannedRole::hasInput))
                        .put("deployment", getRuntimeContext().getTaskInfo().getAttemptNumber())
                        .put("master_restarts", masterRestarts);
        String withoutToken = control.toString(); // the coordinator also answers clients of Flink's REST API
        output.collect(new StreamRecord<>(control.put("token", token).toString()));
        coordinator.sendEventToCoordinator(new AmEvents.MasterListens(withoutToken));
        isAddressEmitted = true;
    }

    /** Ends the control stream, and with it the roles; the coordinator sees to the right moment. */
    private void endSourceIfFinished() {
        if (isFinished && sourceExecution != null && !isEndSent) {
            isEndSent = true;
            coordinator.sendEventToCoordinator(new AmEvents.ClusterFinished(sourceExecution));
        }
    }

    private void onMasterExit(ChildExit exit) throws Exception {
        if (isFinished || master.isStopRequested()) {
            isMasterGone = true;
            return;
        }
        String text = exit.describe("The master process of cluster '" + cluster.name() + "'");
        if (exit.exitCode().isEmpty()) {
            throw exit.toException(text);
        }
        if (masterRestarts >= cluster.maxMasterRestarts()) {
            throw new PythonProcessException(
                    String.format(
                            "%s%nIt was restarted %s times (limit set by `am.max_master_restarts`).",
                            text, masterRestarts));
        }
        masterRestarts++;
        LOG.warn("{} Restart {} of {}", text, masterRestarts, cluster.maxMasterRestarts());
        startMaster();
    }
}
