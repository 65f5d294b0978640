package org.headrace.exchange;

import org.apache.flink.table.data.GenericRowData;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.types.logical.RowType;

import java.nio.file.Path;
import java.util.List;
import java.util.Locale;

/**
 * Rows/s of 16 FLOAT columns through a queue to a real process, without Flink's runtime; making each
 * row is included. Arguments: socket path, temp directory, rows per run, runs.
 */
public final class QueueHop implements QueueListener {

    private static final int COLUMNS = 16;

    private QueueHop() {}

    public static void main(String[] args) throws Exception {
        StringBuilder columns = new StringBuilder("ROW<");
        for (int i = 0; i < COLUMNS; i++) {
            columns.append(i == 0 ? "" : ", ").append("f").append(i).append(" FLOAT");
        }
        RowType type = QueueFixture.type(columns + ">");
        long rows = Long.parseLong(args[2]);
        TestMailbox mailbox = new TestMailbox();
        try (MemoryQueue queue =
                MemoryQueue.open(
                        new ExchangeSettings(8, 2 << 20, 4096, 10, 1 << 30),
                        type,
                        null,
                        new QueuePlace(Path.of(args[0]), List.of(Path.of(args[1])), "hop"),
                        new TaskHooks(mailbox, new MailTimers(mailbox), () -> {}, () -> {}),
                        new QueueHop())) {
            System.out.println("listening");
            mailbox.yieldUntil(queue::isConnected);
            for (int run = 0; run < Integer.parseInt(args[3]); run++) {
                long start = System.nanoTime();
                for (long i = 0; i < rows; i++) {
                    queue.write(row(i), true, i);
                    if (mailbox.size() > 0) {
                        mailbox.tryYield();
                    }
                }
                double seconds = (System.nanoTime() - start) / 1e9;
                System.out.printf(Locale.ROOT, "%.3f Mrows/s%n", rows / seconds / 1e6);
            }
            queue.writeEnd();
            mailbox.yieldUntil(queue::isProcessDone);
        }
    }

    private static RowData row(long i) {
        GenericRowData row = new GenericRowData(COLUMNS);
        for (int field = 0; field < COLUMNS; field++) {
            row.setField(field, (float) (i + field));
        }
        return row;
    }

    @Override
    public void onRow(RowData row, boolean hasTimestamp, long timestamp) {}

    @Override
    public void onWatermark(long timestamp) {}

    @Override
    public void onBarrierAck(long checkpointId, StateFile state) {}

    @Override
    public void onBarrierDeclined(long checkpointId) {}

    @Override
    public void onOutputEnd() {}

    @Override
    public void onConnectionLost(Throwable cause) {
        throw new AssertionError("lost", cause);
    }
}
