package org.headrace.operator;

import org.apache.flink.annotation.Internal;
import org.apache.flink.metrics.MetricGroup;
import org.apache.flink.table.data.RowData;

import org.headrace.plan.ClusterPlan;
import org.headrace.plan.RolePlan;
import org.headrace.plan.Timeouts;
import org.headrace.process.TaskFacts;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

import java.io.IOException;
import java.time.Duration;
import java.util.ArrayDeque;
import java.util.Collection;
import java.util.Deque;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;

/**
 * Scores rows that are handed over one by one in whole batches, in a process of its own. For a function,
 * which has neither the mailbox nor the timers that an operator has.
 *
 * <p>Thread model: {@link #score} and {@link #close} belong to the task thread; {@code score} never blocks.
 * One thread per scorer, "headrace scorer ...", owns the memory queue, the node process and the rows that
 * are with it; see {@link ScorerLoop}. It completes the futures. It ends with {@link #close}, or with the
 * first failure: then every future that is open, and every later one, fails with its cause.
 */
@Internal
public final class RowScorer implements AutoCloseable {

    private static final Logger LOG = LoggerFactory.getLogger(RowScorer.class);
    private static final Duration CLOSE_MARGIN = Duration.ofSeconds(10);

    private final ScorerMailbox mailbox;
    private final ScorerLoop loop;
    private final Thread thread;
    private final Duration closeLimit;

    private final Object lock = new Object();
    private Deque<Ask> asks = new ArrayDeque<>(); // guarded by lock
    private Throwable failure; // guarded by lock; null: it scores

    /** A row and what it is waited for by. */
    record Ask(RowData row, CompletableFuture<Collection<RowData>> answer) {}

    /**
     * Opens the queue and starts the process in the background.
     *
     * @throws IOException if the work directory cannot be made
     */
    public RowScorer(ClusterPlan cluster, RolePlan role, TaskFacts task, MetricGroup metrics) throws IOException {
        String name = "headrace scorer " + task.jobName() + " " + role.role() + "-" + task.index();
        closeLimit = cluster.timeouts().stopGrace().multipliedBy(2).plus(CLOSE_MARGIN);
        mailbox = new ScorerMailbox(name);
        try {
            loop = new ScorerLoop(this, mailbox, cluster, role, task, new RoleMetrics(metrics));
        } catch (Throwable e) {
            mailbox.close();
            throw e;
        }
        thread = new Thread(loop, name);
        thread.setDaemon(true);
        try {
            thread.start();
        } catch (Throwable e) { // the system may have no more threads
            loop.end(e);
            throw e;
        }
    }

    /**
     * Hands a row over, which must not change afterwards.
     *
     * @return its one row of scores, completed on another thread; failed at once if the scorer has failed
     */
    public CompletableFuture<Collection<RowData>> score(RowData row) {
        CompletableFuture<Collection<RowData>> answer = new CompletableFuture<>();
        synchronized (lock) {
            if (failure != null) {
                answer.completeExceptionally(failure);
                return answer;
            }
            asks.add(new Ask(row, answer));
            if (asks.size() > 1) {
                return answer; // who handed over the first has woken the thread
            }
        }
        mailbox.execute(() -> {}, "headrace: rows");
        return answer;
    }

    /** The rows handed over since the last call, in order; {@code empty} takes their place. Scorer's thread. */
    Deque<Ask> takeAsks(Deque<Ask> empty) {
        synchronized (lock) {
            Deque<Ask> taken = asks;
            asks = empty;
            return taken;
        }
    }

    /** From now on every row fails with the cause, those that are handed over already among them. Scorer's thread. */
    void fail(Throwable cause) {
        Deque<Ask> open;
        synchronized (lock) {
            failure = cause;
            open = asks;
            asks = new ArrayDeque<>();
        }
        open.forEach(each -> each.answer().completeExceptionally(cause));
    }

    /**
     * Ends the process and the thread. Idempotent. Bounded by twice {@code timeouts.stop_grace_s} and some
     * seconds; an interrupt makes it kill the process at once.
     */
    @Override
    public void close() {
        loop.requestEnd();
        boolean isInterrupted = false;
        long deadline = System.nanoTime() + closeLimit.toNanos();
        while (thread.isAlive() && System.nanoTime() < deadline) {
            try {
                thread.join(Math.max(1, TimeUnit.NANOSECONDS.toMillis(deadline - System.nanoTime())));
            } catch (InterruptedException e) {
                isInterrupted = true;
                thread.interrupt();
            }
        }
        if (thread.isAlive()) {
            LOG.warn("{} has not ended within {}; it is left behind", thread.getName(), Timeouts.text(closeLimit));
        }
        if (isInterrupted) {
            Thread.currentThread().interrupt();
        }
    }
}
