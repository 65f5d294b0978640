package org.headrace.exchange;

import org.apache.flink.api.common.operators.MailboxExecutor;
import org.apache.flink.api.common.operators.ProcessingTimeService;

import java.util.concurrent.Executors;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.ScheduledFuture;
import java.util.concurrent.TimeUnit;

/** Real processing time, as a Flink task has it: callbacks are mails. */
final class MailTimers implements ProcessingTimeService {

    private final MailboxExecutor mailbox;
    private final ScheduledExecutorService clock =
            Executors.newSingleThreadScheduledExecutor(
                    work -> {
                        Thread thread = new Thread(work, "timers");
                        thread.setDaemon(true);
                        return thread;
                    });

    MailTimers(MailboxExecutor mailbox) {
        this.mailbox = mailbox;
    }

    @Override
    public long getCurrentProcessingTime() {
        return System.currentTimeMillis();
    }

    @Override
    public ScheduledFuture<?> registerTimer(long timestamp, ProcessingTimeCallback callback) {
        return clock.schedule(
                () -> mailbox.execute(() -> callback.onProcessingTime(timestamp), "timer"),
                timestamp - getCurrentProcessingTime(),
                TimeUnit.MILLISECONDS);
    }
}
