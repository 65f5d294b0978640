package org.headrace.operator;

import org.apache.flink.metrics.MetricGroup;
import org.apache.flink.runtime.execution.Environment;
import org.apache.flink.streaming.api.operators.StreamOperatorParameters;
import org.apache.flink.streaming.api.operators.StreamingRuntimeContext;
import org.apache.flink.table.data.RowData;

import org.headrace.plan.ClusterPlan;
import org.headrace.plan.RolePlan;
import org.headrace.plan.Timeouts;
import org.headrace.process.MailboxWait;
import org.headrace.process.PythonProcessException;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

import java.time.Duration;

/**
 * What all role operators have in common: the node process, the queue to its algorithm process, and
 * the order in which they end.
 *
 * <p>Thread model: task thread only. Waits are mailbox yields: they can be interrupted, are bounded, and
 * emit what the process sends meanwhile.
 */
final class RoleCore implements AutoCloseable {

    private static final Logger LOG = LoggerFactory.getLogger(RoleCore.class);

    private final ClusterPlan cluster;
    private final RolePlan role;
    private final Environment environment;
    private final MailboxWait wait;

    private RoleNode node;
    private boolean hasMaster;

    RoleCore(ClusterPlan cluster, RolePlan role, StreamOperatorParameters<RowData> parameters) {
        this.cluster = cluster;
        this.role = role;
        environment = parameters.getContainingTask().getEnvironment();
        wait = new MailboxWait(parameters.getMailboxExecutor());
    }

    /** Starts the node in the background. */
    void open(StreamingRuntimeContext context, boolean withMaster) throws Exception {
        hasMaster = withMaster;
        MetricGroup metrics = context.getMetricGroup().addGroup("headrace");
        node = new RoleNode(cluster, role, environment, context, wait, metrics, this::onProcessEnded);
        node.start(null, hasMaster);
    }

    /** A record of the control stream. */
    void onControl(String record) {
        node.onControl(record);
    }

    /** The master has ended the cluster, or a drain has ended everything. */
    void onControlEnd() {
        node.requestStop("the ML cluster has ended");
    }

    /** Waits for the orderly end of node and output, at most {@code timeouts.stop_timeout_s}. */
    void finish() throws InterruptedException {
        Duration limit = cluster.timeouts().stop();
        node.requestStop("all input was used up");
        if (!wait.until(node::isGone, limit)) {
            LOG.warn(
                    "{} did not end within {} (limit set by `timeouts.stop_timeout_s`); it is killed",
                    node.label(),
                    Timeouts.text(limit));
        }
    }

    /** Ends the node and everything below it. Bounded; idempotent. */
    @Override
    public void close() {
        if (node != null) {
            node.close();
        }
    }

    private void onProcessEnded(RoleNode.Outcome outcome, String failure, boolean isRestartable) throws Exception {
        if (!hasMaster && outcome == RoleNode.Outcome.FAILED) {
            throw PythonProcessException.of(failure, isRestartable);
        }
    }
}
