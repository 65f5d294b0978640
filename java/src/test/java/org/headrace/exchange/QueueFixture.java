package org.headrace.exchange;

import org.apache.flink.table.data.GenericRowData;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.data.StringData;
import org.apache.flink.table.types.logical.RowType;
import org.apache.flink.table.types.logical.utils.LogicalTypeParser;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.stream.Stream;

/** A queue with a test's mailbox and clock, and a log of what its listener heard. */
final class QueueFixture implements QueueListener, AutoCloseable {

    static final RowType TYPE = type("ROW<i INT, s STRING>");

    final TestMailbox mailbox = new TestMailbox();
    final ManualTimers timers = new ManualTimers();
    final List<String> heard = new ArrayList<>();
    final List<StateFile> states = new ArrayList<>(); // a test closes them
    final AtomicInteger blocked = new AtomicInteger();
    final Path directory;
    final Path socketPath;
    final MemoryQueue queue;
    Throwable lostCause;

    QueueFixture(ExchangeSettings settings, RowType input, RowType output) throws IOException {
        directory = Files.createTempDirectory("hr");
        socketPath = directory.resolve("queue");
        queue =
                MemoryQueue.open(
                        settings,
                        input,
                        output,
                        new QueuePlace(socketPath, List.of(directory), "job test-0"),
                        new TaskHooks(
                                mailbox,
                                timers,
                                blocked::incrementAndGet,
                                () -> {}),
                        this);
    }

    static QueueFixture inAndOut(int slots, int batchRows, long lingerMs) throws IOException {
        return new QueueFixture(settings(slots, batchRows, lingerMs), TYPE, TYPE);
    }

    static ExchangeSettings settings(int slots, int batchRows, long lingerMs) {
        return new ExchangeSettings(slots, 1 << 16, batchRows, lingerMs, 1 << 20);
    }

    static RowType type(String text) {
        return (RowType) LogicalTypeParser.parse(text, QueueFixture.class.getClassLoader());
    }

    static RowData row(int number) {
        return row(number, "row " + number);
    }

    static RowData row(int number, String text) {
        return GenericRowData.of(number, StringData.fromString(text));
    }

    void write(int number) throws InterruptedException {
        queue.write(row(number), true, number);
    }

    /** Connects a process that has mapped the segments. */
    FakeProcess connect() throws Exception {
        FakeProcess process = new FakeProcess(socketPath);
        process.hello();
        map(process);
        return process;
    }

    /** Lets a process that has said HELLO map the segments. */
    void map(FakeProcess process) throws Exception {
        while (!process.hasInput()) {
            mailbox.yield();
        }
        int before = countOf("connected");
        process.map();
        mailbox.yieldUntil(() -> countOf("connected") > before);
    }

    int countOf(String what) {
        return (int) heard.stream().filter(each -> each.startsWith(what)).count();
    }

    @Override
    public void onConnected(int attempt, long pid) {
        heard.add("connected");
    }

    @Override
    public void onRow(RowData row, boolean hasTimestamp, long timestamp) {
        heard.add(RowTexts.of(row, TYPE));
    }

    @Override
    public void onWatermark(long timestamp) {
        heard.add("watermark " + timestamp);
    }

    @Override
    public void onBarrierDeclined(long checkpointId) {
        heard.add("declined " + checkpointId);
    }

    @Override
    public void onBarrierAck(long checkpointId, StateFile state) {
        heard.add("acknowledged " + checkpointId);
        if (state != null) {
            states.add(state);
        }
    }

    @Override
    public void onOutputEnd() {
        heard.add("end");
    }

    @Override
    public void onConnectionLost(Throwable cause) {
        heard.add("lost");
        lostCause = cause;
    }

    @Override
    public void close() throws IOException {
        queue.close();
        try (Stream<Path> files = Files.list(directory)) {
            Behaviours.checkEqual(files.toList(), List.of());
        }
        Files.delete(directory);
    }
}
