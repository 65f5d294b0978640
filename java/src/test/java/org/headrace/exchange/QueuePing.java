package org.headrace.exchange;

import org.apache.flink.table.data.GenericRowData;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.types.logical.RowType;

import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import java.util.Locale;
import java.util.concurrent.locks.LockSupport;

/**
 * Round trip of single rows to a real process that sends them back (without linger), at a given rate.
 * Arguments: socket path, temp directory, rows, rows per second.
 */
public final class QueuePing implements QueueListener {

    private long arrived;
    private boolean isEnded;

    private QueuePing() {}

    public static void main(String[] args) throws Exception {
        RowType type = QueueFixture.type("ROW<i BIGINT>");
        int rows = Integer.parseInt(args[2]);
        long everyNanos = 1_000_000_000L / Long.parseLong(args[3]);
        TestMailbox mailbox = new TestMailbox();
        QueuePing ping = new QueuePing();
        QueuePlace place = new QueuePlace(Path.of(args[0]), List.of(Path.of(args[1])), "ping");
        TaskHooks hooks = new TaskHooks(mailbox, new MailTimers(mailbox), () -> {}, () -> {});
        ExchangeSettings settings = new ExchangeSettings(8, 1 << 16, 1024, 0, 1 << 30);
        try (MemoryQueue queue = MemoryQueue.open(settings, type, type, place, hooks, ping)) {
            System.out.println("listening");
            mailbox.yieldUntil(queue::isConnected);
            long[] nanos = new long[rows];
            long due = System.nanoTime();
            for (int i = 0; i < rows; i++) {
                while (System.nanoTime() < due) {
                    if (!mailbox.tryYield()) {
                        LockSupport.parkNanos(due - System.nanoTime());
                    }
                }
                due = Math.max(due + everyNanos, System.nanoTime());
                long sent = System.nanoTime();
                queue.write(GenericRowData.of((long) i), false, 0);
                int expected = i + 1;
                mailbox.yieldUntil(() -> ping.arrived == expected);
                nanos[i] = System.nanoTime() - sent;
            }
            queue.writeEnd();
            mailbox.yieldUntil(() -> ping.isEnded);
            long[] warm = Arrays.copyOfRange(nanos, rows / 4, rows);
            Arrays.sort(warm);
            System.out.printf(
                    Locale.ROOT,
                    "p50 %.3f ms, p99 %.3f ms, max %.3f ms%n",
                    warm[warm.length / 2] / 1e6,
                    warm[warm.length * 99 / 100] / 1e6,
                    warm[warm.length - 1] / 1e6);
        }
    }

    @Override
    public void onRow(RowData row, boolean hasTimestamp, long timestamp) {
        arrived++;
    }

    @Override
    public void onWatermark(long timestamp) {}

    @Override
    public void onBarrierAck(long checkpointId, StateFile state) {}

    @Override
    public void onBarrierDeclined(long checkpointId) {}

    @Override
    public void onOutputEnd() {
        isEnded = true;
    }

    @Override
    public void onConnectionLost(Throwable cause) {
        throw new AssertionError("lost", cause);
    }
}
