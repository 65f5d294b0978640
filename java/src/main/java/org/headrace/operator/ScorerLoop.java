package org.headrace.operator;

import org.apache.flink.table.data.RowData;
import org.apache.flink.util.FlinkRuntimeException;

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
import org.headrace.process.TaskFacts;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

import java.io.IOException;
import java.nio.file.Path;
import java.util.ArrayDeque;
import java.util.Collection;
import java.util.Deque;
import java.util.List;
import java.util.concurrent.CancellationException;
import java.util.concurrent.CompletableFuture;

/**
 * What the thread of a {@link RowScorer} does: writes rows into the memory queue and completes, with each row
 * that comes back, the future of the oldest row that is with the process.
 *
 * <p>Thread model: constructed on the task thread, then this thread only, but for {@link #requestEnd}. It
 * waits for mails: of the queue, of the node, of timers, of rows that were handed over, of the end. No wait
 * lasts for ever: the node reports the end of its process, a process that is lost without a report is a
 * failure after {@code timeouts.stop_timeout_s}, and {@code close} ends everything.
 */
final class ScorerLoop implements Runnable, RoleNode.ProcessListener, QueueListener {

    private static final Logger LOG = LoggerFactory.getLogger(ScorerLoop.class);

    private final RowScorer scorer;
    private final ScorerMailbox mailbox;
    private final Timeouts timeouts;
    private final MailboxWait wait;
    private final RoleMetrics metrics;
    private final RoleNode node;
    private final MemoryQueue queue;

    private Deque<RowScorer.Ask> asks = new ArrayDeque<>();
    private final Deque<CompletableFuture<Collection<RowData>>> waiting = new ArrayDeque<>(); // oldest first
    private boolean isEnding;
    private boolean isProcessEnded;
    private boolean isLost;

    ScorerLoop(
            RowScorer scorer,
            ScorerMailbox mailbox,
            ClusterPlan cluster,
            RolePlan role,
            TaskFacts task,
            RoleMetrics metrics)
            throws IOException {
        this.scorer = scorer;
        this.mailbox = mailbox;
        this.metrics = metrics;
        timeouts = cluster.timeouts();
        wait = new MailboxWait(mailbox);
        node = new RoleNode(cluster, role, task, wait, metrics, null, this);
        MemoryQueue opened = null;
        try {
            Path socket = node.workDir().socketPath();
            opened =
                    MemoryQueue.open(
                            role.exchange(),
                            role.inputType(),
                            role.outputType(),
                            new QueuePlace(socket, task.tmpDirs().stream().map(Path::of).toList(), node.title()),
                            new TaskHooks(mailbox, mailbox, () -> {}, () -> {}),
                            this);
            metrics.addBytes(opened::bytesIn, opened::bytesOut);
            node.start(socket, false, false, null, List.of());
        } catch (Throwable e) {
            close(node, opened);
            throw e;
        }
        queue = opened;
    }

    /** Ends the thread: at once while rows are with the process, else with the process's orderly end. Any thread. */
    void requestEnd() {
        mailbox.execute(
                () -> {
                    isEnding = true;
                    if (!waiting.isEmpty()) { // it may be in the middle of a write
                        throw new CancellationException("The function was closed while rows were scored.");
                    }
                },
                "headrace: end");
    }

    @Override
    public void run() {
        Throwable cause = new CancellationException("The function was closed.");
        try {
            while (!isEnding) {
                if (!writeAsks()) {
                    mailbox.yield();
                }
                while (mailbox.tryYield()) {
                    // what the process sent frees slots and completes rows
                }
            }
            endProcess();
        } catch (InterruptedException e) {
            cause = e;
            Thread.currentThread().interrupt(); // the process gets no grace
        } catch (FlinkRuntimeException e) { // of a mail
            cause = e.getCause() == null ? e : e.getCause();
        } catch (Throwable e) {
            cause = e;
        } finally {
            end(cause);
        }
    }

    /** Writes the rows that were handed over; returns whether there were any. */
    private boolean writeAsks() throws InterruptedException {
        if (isLost) {
            return false; // they wait for the failure
        }
        asks = scorer.takeAsks(asks);
        boolean isAny = !asks.isEmpty();
        for (RowScorer.Ask each = asks.poll(); each != null; each = asks.poll()) {
            waiting.add(each.answer());
            metrics.rowsIn().inc();
            queue.write(each.row(), false, 0);
        }
        return isAny;
    }

    private void endProcess() throws InterruptedException {
        queue.writeEnd();
        wait.until(() -> isProcessEnded || node.isGone(), timeouts.stopGrace());
    }

    /** Fails what is open, then ends what there is. This thread, or the task thread if it cannot start. */
    void end(Throwable cause) {
        asks.forEach(each -> each.answer().completeExceptionally(cause));
        waiting.forEach(each -> each.completeExceptionally(cause));
        scorer.fail(cause);
        mailbox.close();
        close(node, queue);
    }

    private static void close(RoleNode node, MemoryQueue queue) {
        try {
            node.close();
        } finally {
            if (queue != null) {
                queue.close();
            }
        }
    }

    @Override
    public void onRow(RowData row, boolean hasTimestamp, long timestamp) {
        CompletableFuture<Collection<RowData>> oldest = waiting.poll();
        if (oldest == null) {
            throw new IllegalStateException("The process of " + node.label() + " sent a row that nobody waits for");
        }
        metrics.rowsOut().inc();
        oldest.complete(List.of(row));
    }

    @Override
    public void onWatermark(long timestamp) {}

    @Override
    public void onBarrierAck(long checkpointId, StateFile state) {}

    @Override
    public void onBarrierDeclined(long checkpointId) {}

    @Override
    public void onOutputEnd() throws PythonProcessException {
        if (!isEnding) {
            throw new PythonProcessException("The process of " + node.label() + " ended its output before its input");
        }
    }

    /** The node tells why; only if it does not, this fails by itself. */
    @Override
    public void onConnectionLost(Throwable lost) {
        if (isEnding || isLost) {
            return;
        }
        LOG.warn("{} lost its process; waiting for the node to say why", node.label(), lost);
        isLost = true;
        wait.after(
                timeouts.stop(),
                () -> {
                    throw new PythonProcessException(
                            String.format(
                                    "The process of %s ended without saying so, and its node has not told why within"
                                            + " %s (limit set by `timeouts.stop_timeout_s`).",
                                    node.label(), Timeouts.text(timeouts.stop())),
                            lost);
                });
    }

    @Override
    public void onProcessEnded(RoleNode.Outcome outcome, String failure, boolean isRestartable) throws Exception {
        isProcessEnded = true;
        if (isEnding) {
            return;
        }
        if (outcome == RoleNode.Outcome.FAILED) {
            throw PythonProcessException.of(failure, isRestartable);
        }
        throw new PythonProcessException("The process of " + node.label() + " ended before its input");
    }

    @Override
    public void onMasterUnreachable() {} // there is none
}
