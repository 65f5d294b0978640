package org.headrace.operator;

import org.apache.flink.configuration.Configuration;
import org.apache.flink.configuration.RestartStrategyOptions;
import org.apache.flink.configuration.RestartStrategyOptions.RestartStrategyType;
import org.apache.flink.configuration.TaskManagerOptions;
import org.apache.flink.streaming.api.operators.StreamingRuntimeContext;

import org.headrace.plan.ClusterPlan;
import org.headrace.plan.RolePlan;
import org.headrace.process.ChildHome;
import org.headrace.process.MailboxWait;
import org.headrace.process.PythonEnvironment;
import org.headrace.process.SpareNode;
import org.headrace.process.SpareNodes;
import org.headrace.process.TaskFacts;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

import java.time.Duration;
import java.util.concurrent.CompletableFuture;

/**
 * What one role subtask has to do with spare nodes: it takes one when it begins, and has one made once its
 * process has run for a while and a checkpoint has completed (docs/adr/0120).
 *
 * <p>Thread model: task thread only.
 */
final class SpareSupply {

    private static final Logger LOG = LoggerFactory.getLogger(SpareSupply.class);

    private final ClusterPlan cluster;
    private final RolePlan role;
    private final TaskFacts task;
    private final MailboxWait wait;
    private final SpareNodes nodes;
    private final String key;
    private boolean isStream;
    private boolean hasBegun;
    private long due; // System.nanoTime()
    private CompletableFuture<Void> timer;

    private SpareSupply(ClusterPlan cluster, RolePlan role, TaskFacts task, MailboxWait wait, SpareNodes nodes) {
        this.cluster = cluster;
        this.role = role;
        this.task = task;
        this.wait = wait;
        this.nodes = nodes;
        key = cluster.uidPrefix() + "-" + role.role();
        nodes.enter(key);
    }

    /** That of a subtask which begins; null if its role has no spares, or Flink does not restart the job. */
    static SpareSupply open(
            ClusterPlan cluster,
            RolePlan role,
            TaskFacts task,
            MailboxWait wait,
            StreamingRuntimeContext context,
            Configuration job) {
        boolean isLasting = PythonEnvironment.isLasting(cluster.pythonConfig(), task.tmpDirs());
        if (role.spareAfter() == null || !isLasting || !isRestarted(job, task.flink())) {
            return null;
        }
        return new SpareSupply(cluster, role, task, wait, SpareNodes.of(task.jobId(), context));
    }

    /** What the job says goes before what the cluster says; with checkpoints Flink restarts by default. */
    private static boolean isRestarted(Configuration job, Configuration host) {
        return job.getOptional(RestartStrategyOptions.RESTART_STRATEGY)
                .or(() -> host.getOptional(RestartStrategyOptions.RESTART_STRATEGY))
                .map(name -> RestartStrategyType.of(name) != RestartStrategyType.NO_RESTART_STRATEGY)
                .orElse(true);
    }

    /** A spare, which the caller owns from now on; null if there is none. */
    SpareNode take() {
        return nodes.take(key, task);
    }

    /** Rows flow into a role of the cluster, so Flink restarts it as a whole. */
    void onStreamMode() {
        isStream = true;
    }

    void onProcessStarted() {
        hasBegun = true;
        due = System.nanoTime() + role.spareAfter().toNanos();
    }

    /** Has a spare made, now or when it is due; cheap if there is nothing to do. */
    void onCheckpointComplete() {
        if (!isStream || !hasBegun || timer != null) {
            return;
        }
        long leftNanos = due - System.nanoTime();
        if (leftNanos <= 0) {
            make();
            return;
        }
        timer =
                wait.after(
                        Duration.ofNanos(leftNanos),
                        () -> {
                            timer = null;
                            make();
                        });
    }

    /** A job with fewer subtasks than are planned gets more when there are slots, perhaps those here. */
    private int mostHere() {
        return task.parallelism() < role.parallelism() ? task.flink().get(TaskManagerOptions.NUM_TASK_SLOTS) : 0;
    }

    /** Whatever goes wrong: without a spare the next attempt starts as it would have. */
    private void make() {
        try {
            nodes.make(
                    key,
                    mostHere(),
                    cluster.nodeModule(),
                    () -> new ChildHome(cluster, role.role(), role.specJson(), role.payload(), null, task),
                    role.spareAfter());
        } catch (Exception e) {
            LOG.warn("No spare for {} could be made", key, e);
        }
    }

    /** The subtask has ended; {@code isFinished} if it comes back in no attempt. */
    void close(boolean isFinished) {
        if (timer != null) {
            timer.cancel(false);
        }
        nodes.leave(key, isFinished);
    }
}
