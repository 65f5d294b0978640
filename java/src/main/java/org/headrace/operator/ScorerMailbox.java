package org.headrace.operator;

import org.apache.flink.api.common.operators.MailboxExecutor;
import org.apache.flink.api.common.operators.ProcessingTimeService;
import org.apache.flink.util.FlinkRuntimeException;
import org.apache.flink.util.function.ThrowingRunnable;

import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.ScheduledFuture;
import java.util.concurrent.ScheduledThreadPoolExecutor;
import java.util.concurrent.TimeUnit;

/**
 * What a Flink task gives an operator and not a function: a mailbox, and timers whose callbacks are mails.
 *
 * <p>Thread model: {@link #execute} and {@link #registerTimer} on any thread, never blocking; yields on the
 * one thread that owns it. The thread of the timers starts with the first of them and ends with {@link #close}.
 */
final class ScorerMailbox implements MailboxExecutor, ProcessingTimeService, AutoCloseable {

    private final LinkedBlockingQueue<ThrowingRunnable<? extends Exception>> mails = new LinkedBlockingQueue<>();
    private final ScheduledThreadPoolExecutor clock;

    ScorerMailbox(String name) {
        clock =
                new ScheduledThreadPoolExecutor(
                        1,
                        run -> {
                            Thread thread = new Thread(run, name + " timers");
                            thread.setDaemon(true);
                            return thread;
                        });
    }

    @Override
    public void execute(
            MailOptions options, ThrowingRunnable<? extends Exception> mail, String description, Object... args) {
        mails.add(mail);
    }

    /** Waits for a mail and runs it; what it throws is the cause of the exception. */
    @Override
    public void yield() throws InterruptedException {
        run(mails.take());
    }

    @Override
    public boolean tryYield() {
        ThrowingRunnable<? extends Exception> mail = mails.poll();
        if (mail != null) {
            run(mail);
        }
        return mail != null;
    }

    @Override
    public boolean shouldInterrupt() {
        return !mails.isEmpty();
    }

    @Override
    public long getCurrentProcessingTime() {
        return System.currentTimeMillis();
    }

    @Override
    public ScheduledFuture<?> registerTimer(long timestamp, ProcessingTimeCallback callback) {
        return clock.schedule(
                () -> execute(() -> callback.onProcessingTime(timestamp), "headrace: timer"),
                timestamp - getCurrentProcessingTime(),
                TimeUnit.MILLISECONDS);
    }

    @Override
    public void close() {
        clock.shutdownNow();
        mails.clear();
    }

    private static void run(ThrowingRunnable<? extends Exception> mail) {
        try {
            mail.run();
        } catch (Exception e) {
            throw new FlinkRuntimeException(e);
        }
    }
}
