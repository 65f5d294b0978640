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
import org.headrace.process.TaskFacts;
import org.headrace.process.WorkDir;

import java.io.IOException;
import java.nio.file.Path;
import java.util.List;
import java.util.Locale;
import java.util.Map;

/**
 * The node process of one role subtask, seen from its operator.
 *
 * <p>Thread model: the thread of the mailbox only, a task's or a scorer's; what the node says comes as
 * mails. A failure that the node reports, and its end without having been told to stop, are thrown from
 * such a mail and fail the task.
 */
final class RoleNode implements AutoCloseable {

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
    private ChildProcess child;
    private long group;
    private boolean isGone;

    RoleNode(
            ClusterPlan cluster,
            RolePlan role,
            TaskFacts task,
            MailboxWait wait,
            RoleMetrics metrics,
            ProcessListener listener)
            throws IOException {
        this.cluster = cluster;
        this.task = task;
        this.wait = wait;
        this.metrics = metrics;
        this.listener = listener;
        home = new ChildHome(cluster, role.role(), role.specJson(), role.payload(), role.mirror(), task);
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
     * Starts the node in the background.
     *
     * @param queueSocket where the algorithm process finds its queue; null without rows
     * @param hasMaster false for a chained role, whose process starts at once
     * @param isRestored whether the rows to come are only those behind a checkpoint
     * @param restoredParallelism processes of the role at that checkpoint; null without one
     * @param states what the checkpoint holds for the process
     */
    void start(
            Path queueSocket,
            boolean hasMaster,
            boolean isRestored,
            Integer restoredParallelism,
            List<StatePart> states) {
        ObjectNode line = hasMaster ? home.startLineWithMaster() : home.startLine();
        line.put("queue_socket", queueSocket == null ? null : queueSocket.toString());
        line.put("is_restored", isRestored);
        line.put("restored_parallelism", restoredParallelism);
        ArrayNode described = line.putArray("states");
        states.forEach(state -> state.describe(described.addObject()));
        ArrayNode gpus = line.putArray("gpus");
        task.gpus().forEach(gpus::add);
        if (!hasMaster) {
            line.putNull("master");
        }
        child =
                home.start(
                        cluster.nodeModule(),
                        line,
                        new ChildProcess.Listener() {
                            @Override
                            public void onLine(ObjectNode said) {
                                wait.post(() -> onNodeLine(said), "headrace node line");
                            }

                            @Override
                            public void onExit(ChildExit exit) {
                                wait.post(() -> onNodeExit(exit), "headrace node exit");
                            }
                        });
    }

    /** Passes a record of the control stream on. Records after {@link #requestStop} are dropped. */
    void onControl(String record) {
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
        home.close();
    }

    private void onNodeLine(ObjectNode line) throws Exception {
        String type = Lines.requireText(line, "type");
        switch (type) {
            case "process_started":
                group = line.path("pid").longValue();
                child.addGroup(group);
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

    private void onNodeExit(ChildExit exit) throws Exception {
        isGone = true;
        if (!child.isStopRequested()) {
            throw exit.toException(exit.describe("The node process of " + label()));
        }
    }
}
