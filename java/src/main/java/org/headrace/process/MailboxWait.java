package org.headrace.process;

import org.apache.flink.annotation.Internal;
import org.apache.flink.api.common.operators.MailboxExecutor;
import org.apache.flink.util.concurrent.FutureUtils;
import org.apache.flink.util.function.ThrowingRunnable;

import java.time.Duration;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.RejectedExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.function.BooleanSupplier;

/**
 * Waits on the task thread by yielding to mails, so that rows, lines and aborted checkpoints are
 * handled meanwhile. Interruptible; used by the task thread only (or the one that owns the mailbox),
 * {@link #post} by any.
 */
@Internal
public final class MailboxWait {

    private final MailboxExecutor mailbox;

    public MailboxWait(MailboxExecutor mailbox) {
        this.mailbox = mailbox;
    }

    /** Runs an action on the task thread; dropped once the task closes. Any thread; never blocks. */
    public void post(ThrowingRunnable<? extends Exception> action, String description) {
        try {
            mailbox.execute(action, description);
        } catch (RejectedExecutionException e) {
            // The mailbox is closed: the task ends, and close() of the operator ends the rest.
        }
    }

    /**
     * Yields until the condition holds. Whatever makes it true must come as a mail.
     *
     * @return whether it holds; false if {@code atMost} has passed
     */
    public boolean until(BooleanSupplier condition, Duration atMost) throws InterruptedException {
        if (condition.getAsBoolean()) {
            return true;
        }
        boolean[] isOver = new boolean[1];
        CompletableFuture<Void> timer = after(atMost, () -> isOver[0] = true);
        try {
            while (!condition.getAsBoolean() && !isOver[0]) {
                mailbox.yield();
            }
        } finally {
            timer.cancel(false);
        }
        return condition.getAsBoolean();
    }

    /** Yields until the condition holds; for waits that the other side's end or a cancel ends. */
    public void until(BooleanSupplier condition) throws InterruptedException {
        while (!condition.getAsBoolean()) {
            mailbox.yield();
        }
    }

    /** Runs an action on the task thread after a while, unless the returned future is cancelled. */
    public CompletableFuture<Void> after(Duration delay, ThrowingRunnable<? extends Exception> action) {
        CompletableFuture<Void> timer = new CompletableFuture<>();
        FutureUtils.orTimeout(timer, delay.toMillis(), TimeUnit.MILLISECONDS, Runnable::run, null);
        timer.whenComplete(
                (done, timeout) -> {
                    if (!timer.isCancelled()) {
                        post(action, "headrace deadline");
                    }
                });
        return timer;
    }
}
