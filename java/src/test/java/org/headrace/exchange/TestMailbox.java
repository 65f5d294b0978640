package org.headrace.exchange;

import org.apache.flink.api.common.operators.MailboxExecutor;
import org.apache.flink.util.FlinkRuntimeException;
import org.apache.flink.util.function.ThrowingRunnable;

import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.function.BooleanSupplier;

/** A mailbox whose task thread is the test's thread; waits end with an error after ten seconds. */
public final class TestMailbox implements MailboxExecutor {

    static final long PATIENCE_S = 10;

    private final BlockingQueue<ThrowingRunnable<? extends Exception>> mails =
            new LinkedBlockingQueue<>();

    @Override
    public void execute(
            MailOptions options,
            ThrowingRunnable<? extends Exception> command,
            String description,
            Object... args) {
        mails.add(command);
    }

    @Override
    public void yield() throws InterruptedException {
        ThrowingRunnable<? extends Exception> mail = mails.poll(PATIENCE_S, TimeUnit.SECONDS);
        if (mail == null) {
            throw new AssertionError("no mail came");
        }
        run(mail);
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
        return false;
    }

    int size() {
        return mails.size();
    }

    /** Waits until no mail has come for a while, without running any. */
    void awaitSteady() throws InterruptedException {
        int before = -1;
        while (before != mails.size()) {
            before = mails.size();
            TimeUnit.MILLISECONDS.sleep(200); // nothing tells that nothing more will come
        }
    }

    /** Runs mails until {@code holds}. */
    public void yieldUntil(BooleanSupplier holds) throws InterruptedException {
        while (!holds.getAsBoolean()) {
            this.yield();
        }
    }

    private static void run(ThrowingRunnable<? extends Exception> mail) {
        try {
            mail.run();
        } catch (RuntimeException e) {
            throw e;
        } catch (Exception e) {
            throw new FlinkRuntimeException(e);
        }
    }
}
