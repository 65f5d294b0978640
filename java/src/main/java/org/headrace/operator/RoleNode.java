package org.headrace.operator;

import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.JsonNode;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.node.ArrayNode;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.node.ObjectNode;

import org.headrace.json.Lines;
import org.headrace.plan.ClusterPlan;
import org.headrace.plan.RolePlan;
import org.headrace.process.ChildExit;
import org.headrace.process.ChildHome;
import org.headrace.process.ChildProcess;
import org.headrace.process.MailboxWait;
import org.headrace.process.PythonProcessException;
import org.headrace.process.SpareNode;
import org.headrace.process.TaskFacts;
import org.headrace.process.WorkDir;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

import java.io.IOException;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.concurrent.CompletableFuture;

/**
 * The node process of one role subtask, seen from its operator.
 *
 * <p>Thread model: the thread of the mailbox only, a task's or a scorer's; what the node says comes as
 * mails. A failure that the node reports, and its end without having been told to stop, are thrown from
 * such a mail and fail the task.
 */
final class RoleNode implements AutoCloseable {

    private static final Logger LOG = LoggerFactory.getLogger(RoleNode.class);

    /** How long a spare may take to answer its start line: it only has to read it. */
    private static final Duration SPARE_ANSWER = Duration.ofSeconds(2);

    /** How the algorithm process ended. */
    enum Outcome {
        FINISHED,
        FAILED,
        STOPPED
    }

    /** Told when an algorithm process has ended, in a mail of the mailbox's thread. */
    interface ProcessListener {

        /**
         * The process of one attempt has ended.
         *
         * @param failure the full text of its failure; null without one
         * @param isRestartable whether a restart may mend the failure
         */
        void onProcessEnded(Outcome outcome, String failure, boolean isRestartable) throws Exception;

        /** The node cannot reach the master; told again and again until it can. */
        void onMasterUnreachable() throws Exception;
    }

    private final ClusterPlan cluster;
    private final TaskFacts task;
    private final MailboxWait wait;
    private final RoleMetrics metrics;
    private final ProcessListener listener;
    private final ChildHome home;
    private final SpareSupply supply;
    private final SpareNode spare;
    private ChildProcess child;
    private int generation; // of the child: one that was given up says nothing any more
    private String latestRecord;
    private CompletableFuture<Void> answer; // of a spare; null: not waited for
    private long group;
    private boolean isGone;

    /** {@code supply} is null for one that has no spares. */
    RoleNode(
            ClusterPlan cluster,
            RolePlan role,
            TaskFacts task,
            MailboxWait wait,
            RoleMetrics metrics,
            SpareSupply supply,
            ProcessListener listener)
            throws IOException {
        this.cluster = cluster;
        this.task = task;
        this.wait = wait;
        this.metrics = metrics;
        this.supply = supply;
        this.listener = listener;
        spare = supply == null ? null : supply.take();
        home =
                spare == null
                        ? new ChildHome(cluster, role.role(), role.specJson(), role.payload(), role.mirror(), task)
                        : spare.home();
    }

    /** Role and index, for example "worker-0". */
    String label() {
        return home.label();
    }

    /** Name of the job, role and index. */
    String title() {
        return home.title();
    }

    WorkDir workDir() {
        return home.workDir();
    }

    /**
     * Starts the node in the background, or takes one that was started before.
     *
     * @param queueSocket where the algorithm process finds its queue; null without rows
     * @param hasMaster false for a chained role, whose process starts at once
     * @param isRestored whether the rows to come are only those behind a checkpoint
     * @param restoredParallelism processes of the role at that checkpoint; null without one
     * @param states what the checkpoint holds for the process
     * @throws IOException if files for a spare cannot be written
     */
    void start(
            Path queueSocket,
            boolean hasMaster,
            boolean isRestored,
            Integer restoredParallelism,
            List<StatePart> states)
            throws IOException {
        ObjectNode line = hasMaster ? home.startLineWithMaster() : home.startLine();
        line.put("queue_socket", queueSocket == null ? null : queueSocket.toString());
        line.put("has_checkpoints", task.hasCheckpoints());
        line.put("is_restored", isRestored);
        line.put("restored_parallelism", restoredParallelism);
        ArrayNode described = line.putArray("states");
        states.forEach(state -> state.describe(described.addObject()));
        ArrayNode gpus = line.putArray("gpus");
        task.gpus().forEach(gpus::add);
        if (!hasMaster) {
            line.putNull("master");
        }
        if (spare == null) {
            child = home.start(cluster.nodeModule(), line, listener(line));
            return;
        }
        child = spare.child();
        LOG.info("[{}] goes on in spare node process {}", label(), child.pid().orElse(0));
        answer = wait.after(SPARE_ANSWER, () -> onSpareFailed(line, "does not answer"));
        if (!spare.begin(line, listener(line))) {
            onSpareFailed(line, "has ended");
        }
    }

    /** What the child that is started next says, as mails. */
    private ChildProcess.Listener listener(ObjectNode line) {
        generation++;
        int own = generation;
        return new ChildProcess.Listener() {
            @Override
            public void onLine(ObjectNode said) {
                wait.post(
                        () -> {
                            if (own == generation) {
                                onNodeLine(said);
                            }
                        },
                        "headrace node line");
            }

            @Override
            public void onExit(ChildExit exit) {
                wait.post(
                        () -> {
                            if (own == generation) {
                                onNodeExit(exit, line);
                            }
                        },
                        "headrace node exit");
            }
        };
    }

    /** A node that was started before is of no use: another one takes its place. */
    private void onSpareFailed(ObjectNode line, String how) {
        if (answer == null || child.isStopRequested()) {
            return;
        }
        LOG.warn("[{}] the spare node {}; another one is started", label(), how);
        onSpareAnswered();
        child.kill();
        child = home.start(cluster.nodeModule(), line, listener(line));
        if (latestRecord != null) {
            child.send(Lines.parse(latestRecord));
        }
    }

    private void onSpareAnswered() {
        if (answer != null) {
            answer.cancel(false);
            answer = null;
        }
    }

    /** Passes a record of the control stream on. Records after {@link #requestStop} are dropped. */
    void onControl(String record) {
        latestRecord = record;
        if (!child.isStopRequested()) {
            child.send(Lines.parse(record));
        }
    }

    /** Asks the node to end its process and itself. Idempotent. */
    void requestStop(String reason) {
        if (child != null) {
            child.requestStop(reason);
        }
    }

    boolean isStopRequested() {
        return child != null && child.isStopRequested();
    }

    /** Whether the node process has ended. */
    boolean isGone() {
        return child == null || isGone;
    }

    @Override
    public void close() {
        onSpareAnswered();
        home.close();
    }

    private void onNodeLine(ObjectNode line) throws Exception {
        String type = Lines.requireText(line, "type");
        switch (type) {
            case "process_started":
                group = line.path("pid").longValue();
                child.addGroup(group);
                if (supply != null) {
                    supply.onProcessStarted();
                }
                break;
            case "spare":
                onSpareLine(line);
                break;
            case "process_ended":
                child.removeGroup(group);
                onProcessEnded(line);
                break;
            case "master_unreachable":
                listener.onMasterUnreachable();
                break;
            case "report":
                onReport(line.path("values"));
                break;
            case "fail":
                throw PythonProcessException.of(
                        Lines.requireText(line, "message"), line.path("is_restartable").asBoolean(true));
            default:
                throw new IllegalStateException("Node " + label() + " sent a line of unknown type '" + type + "'");
        }
    }

    private void onSpareLine(ObjectNode line) {
        String state = line.path("state").asText();
        if (state.equals("taken")) {
            onSpareAnswered();
        } else if (state.equals("ended")) {
            child.removeGroup(line.path("pid").longValue());
        }
    }

    private void onProcessEnded(ObjectNode line) throws Exception {
        String outcome = Lines.requireText(line, "outcome");
        listener.onProcessEnded(
                Outcome.valueOf(outcome.toUpperCase(Locale.ROOT)),
                line.path("text").textValue(),
                line.path("failure").path("is_restartable").asBoolean(true));
    }

    private void onReport(JsonNode values) {
        for (Map.Entry<String, JsonNode> each : values.properties()) {
            metrics.report(each.getKey(), each.getValue().asDouble(Double.NaN));
        }
    }

    private void onNodeExit(ChildExit exit, ObjectNode line) throws Exception {
        if (answer != null && !child.isStopRequested()) {
            onSpareFailed(line, "has ended");
            return;
        }
        isGone = true;
        if (!child.isStopRequested()) {
            throw exit.toException(exit.describe("The node process of " + label()));
        }
    }
}
