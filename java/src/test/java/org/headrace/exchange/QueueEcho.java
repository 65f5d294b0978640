package org.headrace.exchange;

import org.apache.flink.table.data.GenericRowData;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.data.StringData;
import org.apache.flink.table.types.logical.RowType;

import java.nio.file.Path;
import java.util.List;
import java.util.Locale;

/**
 * Hands rows to a real process that sends every one back, as fast as both can, and checks what comes
 * back: each row once, in order, with its timestamp; watermarks and acknowledgements in their places.
 *
 * <p>Arguments: socket path, temp directory, rows, slots, bytes of a slot, rows of a batch, linger in
 * ms, and a row to be larger than a slot every so many rows (0: none).
 */
public final class QueueEcho implements QueueListener {

    private static final RowType TYPE = QueueFixture.type("ROW<i BIGINT, d DOUBLE, s STRING>");
    private static final int WATERMARK_EVERY = 1_000;
    private static final int BARRIER_EVERY = 5_000;

    private final int slotBytes;
    private final long largeEvery;
    private long next;
    private long lastWatermark = -1;
    private long lastBarrier = -1;
    private boolean isEnded;

    private QueueEcho(int slotBytes, long largeEvery) {
        this.slotBytes = slotBytes;
        this.largeEvery = largeEvery;
    }

    public static void main(String[] args) throws Exception {
        long rows = Long.parseLong(args[2]);
        int slotBytes = Integer.parseInt(args[4]);
        ExchangeSettings settings =
                new ExchangeSettings(
                        Integer.parseInt(args[3]),
                        slotBytes,
                        Integer.parseInt(args[5]),
                        Long.parseLong(args[6]),
                        1L << 30);
        TestMailbox mailbox = new TestMailbox();
        QueueEcho echo = new QueueEcho(slotBytes, Long.parseLong(args[7]));
        Path socketPath = Path.of(args[0]);
        QueuePlace place = new QueuePlace(socketPath, List.of(Path.of(args[1])), "echo");
        TaskHooks hooks = new TaskHooks(mailbox, new MailTimers(mailbox), () -> {}, () -> {});
        try (MemoryQueue queue = MemoryQueue.open(settings, TYPE, TYPE, place, hooks, echo)) {
            System.out.println("listening");
            mailbox.yieldUntil(queue::isConnected);
            long start = System.nanoTime();
            for (long i = 0; i < rows; i++) {
                queue.write(echo.row(i), i % 3 != 0, i);
                if ((i + 1) % WATERMARK_EVERY == 0) {
                    queue.writeWatermark(i);
                }
                if ((i + 1) % BARRIER_EVERY == 0) {
                    queue.writeBarrier(i);
                }
                while (mailbox.tryYield()) {
                    continue;
                }
            }
            queue.writeEnd();
            mailbox.yieldUntil(() -> echo.isEnded);
            double seconds = (System.nanoTime() - start) / 1e9;
            Behaviours.checkEqual(echo.next, rows);
            Behaviours.checkEqual(queue.rowsIn(), rows);
            Behaviours.checkEqual(queue.rowsOut(), rows);
            Behaviours.checkEqual(echo.lastBarrier, rows / BARRIER_EVERY * BARRIER_EVERY - 1);
            System.out.printf(
                    Locale.ROOT, "ok %d rows, %.0f rows/s%n", echo.next, rows / seconds);
        }
    }

    private RowData row(long i) {
        return GenericRowData.of(
                i, i * 0.5, i % 7 == 0 ? null : StringData.fromString("x".repeat(length(i))));
    }

    private int length(long i) {
        if (largeEvery > 0 && i % largeEvery == 1) {
            return slotBytes + (int) (i % 1000);
        }
        return (int) (i % 29);
    }

    @Override
    public void onRow(RowData row, boolean hasTimestamp, long timestamp) {
        long i = next++;
        boolean isSame =
                row.getLong(0) == i
                        && row.getDouble(1) == i * 0.5
                        && row.isNullAt(2) == (i % 7 == 0)
                        && (row.isNullAt(2) || row.getString(2).toBytes().length == length(i))
                        && hasTimestamp == (i % 3 != 0)
                        && (!hasTimestamp || timestamp == i);
        if (!isSame) {
            throw new AssertionError("row " + i + " is " + RowTexts.of(row, TYPE) + timestamp);
        }
    }

    @Override
    public void onWatermark(long timestamp) {
        Behaviours.check(timestamp > lastWatermark, "watermarks go back");
        Behaviours.check(timestamp < next, "a watermark is ahead of its rows");
        lastWatermark = timestamp;
    }

    @Override
    public void onBarrierDeclined(long checkpointId) {}

    @Override
    public void onBarrierAck(long checkpointId, StateFile state) {
        Behaviours.checkEqual(next, checkpointId + 1);
        lastBarrier = checkpointId;
    }

    @Override
    public void onOutputEnd() {
        isEnded = true;
    }

    @Override
    public void onConnectionLost(Throwable cause) {
        throw new AssertionError("lost", cause);
    }
}
