package org.headrace.exchange;

import org.apache.flink.core.memory.MemorySegment;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.types.logical.RowType;

import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;

/**
 * The direction JVM to process: rows into slots, slots to the process as they fill.
 *
 * <p>A slot is free, open (being written) or at the process. While {@link #write} waits, mails run that
 * give slots back, fire the linger timer or end the queue; no batch is open then.
 *
 * <p>Thread model: task thread only.
 */
final class InputSide implements AutoCloseable {

    /** How the input side waits and sends; implemented by the queue. */
    interface Port {

        /** Runs mails until at least one has run. */
        void await(String waitedFor) throws InterruptedException;

        void send(Frame frame);

        /** True once the process has mapped the segments. */
        boolean isConnected();

        void scheduleLinger(long delayMs);

        long nowMs();
    }

    private static final int NO_SLOT = -1; // never leaves this class

    private final ExchangeSettings settings;
    private final Port port;
    private final List<Path> directories;
    private final BatchWriter writer;
    private final BatchWriter ruler;
    private final Segment segment;
    private final int[] freeSlots;
    private final boolean[] isAtProcess;
    private int freeCount;
    private int openSlot = NO_SLOT;
    private Segment oversized;
    private boolean isDiscarding;
    private boolean isLingerScheduled;
    private long sentBatches;
    private long takenBatches; // when the process last said that it waits for more
    private long openedAtMs;

    private volatile long rows;
    private volatile long bytes;
    private volatile long discardedRows;

    InputSide(ExchangeSettings settings, RowType type, List<Path> directories, Port port) {
        this.settings = settings;
        this.port = port;
        this.directories = directories;
        writer = new BatchWriter(type, settings.batchRows());
        boolean isEveryRowMeasured = settings.maxRowBytes() < settings.slotBytes();
        ruler = isEveryRowMeasured ? new BatchWriter(type, 1) : null;
        freeSlots = new int[settings.slots()];
        isAtProcess = new boolean[settings.slots()];
        segment = Segment.create(directories, settings.slots(), settings.slotBytes());
        for (int slot = settings.slots() - 1; slot >= 0; slot--) {
            freeSlots[freeCount++] = slot;
        }
    }

    Segment segment() {
        return segment;
    }

    void write(RowData row, boolean hasTimestamp, long timestamp) throws InterruptedException {
        if (isDiscarding) {
            discardedRows++;
            return;
        }
        if (ruler != null) {
            requireAllowed(ruler.measure(row));
        }
        if (openSlot != NO_SLOT) {
            if (writer.write(row, hasTimestamp, timestamp)) {
                sendIfDue();
                return;
            }
            flush();
        }
        startBatch(row, hasTimestamp, timestamp);
    }

    private void startBatch(RowData row, boolean hasTimestamp, long timestamp)
            throws InterruptedException {
        while (freeCount == 0 && !isDiscarding) {
            port.await("a free slot");
        }
        if (isDiscarding) {
            discardedRows++;
            return;
        }
        int slot = freeSlots[freeCount - 1];
        MemorySegment memory = segment.slot(slot);
        writer.begin(memory);
        if (!writer.write(row, hasTimestamp, timestamp)) {
            long messageBytes = writer.measure(row);
            requireAllowed(messageBytes);
            if (messageBytes > memory.size()) {
                writeOversized(row, hasTimestamp, timestamp);
                return;
            }
            writeAlone(row, hasTimestamp, timestamp, memory);
        }
        freeCount--;
        openSlot = slot;
        openedAtMs = port.nowMs();
        scheduleLinger(settings.lingerMs());
        sendIfDue();
    }

    private void writeAlone(
            RowData row, boolean hasTimestamp, long timestamp, MemorySegment memory) {
        writer.beginFor(row, memory);
        if (!writer.write(row, hasTimestamp, timestamp)) {
            throw new IllegalStateException("a row does not fit the space it was measured for");
        }
    }

    private void requireAllowed(long messageBytes) {
        if (messageBytes > settings.maxRowBytes()) {
            throw new RowTooLargeException(messageBytes, settings.maxRowBytes());
        }
    }

    private void writeOversized(RowData row, boolean hasTimestamp, long timestamp)
            throws InterruptedException {
        while (oversized != null && !isDiscarding) {
            port.await("the process to take the oversized row before this one");
        }
        if (isDiscarding) {
            discardedRows++;
            return;
        }
        int messageBytes = (int) writer.measure(row);
        oversized = Segment.create(directories, 1, messageBytes);
        writeAlone(row, hasTimestamp, timestamp, oversized.slot(0));
        int written = finish();
        sentBatches++;
        port.send(Frame.text(FrameType.OVERSIZE, written, oversized.path().toString()));
    }

    /** Sends the open batch, if there is one. */
    void flush() {
        if (openSlot == NO_SLOT) {
            return;
        }
        int slot = openSlot;
        int batchRows = writer.rows();
        int messageBytes = finish();
        openSlot = NO_SLOT;
        isAtProcess[slot] = true;
        sentBatches++;
        port.send(Frame.batch(slot, messageBytes, batchRows));
    }

    /** Sends the open batch; the process does not join rows of both sides of this place. */
    void cut() {
        flush();
        writer.cut();
    }

    private int finish() {
        int batchRows = writer.rows();
        int messageBytes = writer.finish();
        rows += batchRows;
        bytes += writer.payloadBytes();
        return messageBytes;
    }

    private void sendIfDue() {
        if (writer.isFull() || (settings.lingerMs() == 0 && isProcessIdle())) {
            flush();
        }
    }

    /**
     * True if the process waits for the next batch, or has not got any yet. Credits do not tell: a
     * process that waits may still hold on to batches it was given.
     */
    private boolean isProcessIdle() {
        return port.isConnected() && takenBatches == sentBatches;
    }

    private void scheduleLinger(long delayMs) {
        if (settings.lingerMs() > 0 && !isLingerScheduled) {
            isLingerScheduled = true;
            port.scheduleLinger(delayMs);
        }
    }

    /** The linger timer fired: the open batch leaves if it is old enough. */
    void onLinger() {
        isLingerScheduled = false;
        if (openSlot == NO_SLOT) {
            return;
        }
        long ageMs = Math.max(0, port.nowMs() - openedAtMs);
        if (ageMs >= settings.lingerMs()) {
            flush();
        } else {
            scheduleLinger(settings.lingerMs() - ageMs);
        }
    }

    /** The process has connected: what waited for it may leave. */
    void onConnected() {
        flushIfDue();
    }

    /** The process has taken that many batches and waits for the next one. */
    void onIdle(long batches) {
        MessageMetadata.require(
                batches >= takenBatches && batches <= sentBatches,
                "%s batches taken of %s",
                batches,
                sentBatches);
        takenBatches = batches;
        flushIfDue();
    }

    void onCredit(long slot) {
        MessageMetadata.require(
                slot >= 0 && slot < isAtProcess.length && isAtProcess[(int) slot],
                "credit for slot %s, which it does not hold",
                slot);
        isAtProcess[(int) slot] = false;
        freeSlots[freeCount++] = (int) slot;
    }

    void onOversizeCredit() {
        MessageMetadata.require(oversized != null, "credit for an oversized row that is not out");
        oversized.close();
        oversized = null;
    }

    private void flushIfDue() {
        if (openSlot != NO_SLOT) {
            sendIfDue();
        }
    }

    /** From now on rows are dropped and counted: the process wants no more. */
    void discard() {
        if (openSlot != NO_SLOT) {
            discardedRows += writer.rows();
            freeSlots[freeCount++] = openSlot;
            openSlot = NO_SLOT;
        }
        isDiscarding = true;
    }

    long rows() {
        return rows;
    }

    long bytes() {
        return bytes;
    }

    long discardedRows() {
        return discardedRows;
    }

    @Override
    public void close() {
        openSlot = NO_SLOT;
        isDiscarding = true;
        writer.abandon();
        segment.close();
        if (oversized != null) {
            oversized.close();
            oversized = null;
        }
        Arrays.fill(isAtProcess, false);
    }
}
