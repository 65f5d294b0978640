package org.headrace.exchange;

import org.apache.flink.table.types.logical.RowType;

import java.nio.file.Path;
import java.util.List;

/**
 * The direction process to JVM: batches in slots become rows.
 *
 * <p>Each batch is read as a whole in one mail, then its slot is given back. Every connection gets a
 * new segment.
 *
 * <p>Thread model: task thread only.
 */
final class OutputSide implements AutoCloseable {

    private final ExchangeSettings settings;
    private final List<Path> directories;
    private final BatchReader reader;
    private final QueueListener listener;
    private Segment segment;
    private boolean isUsed;

    private volatile long rows;
    private volatile long bytes;

    OutputSide(
            ExchangeSettings settings,
            RowType type,
            List<Path> directories,
            QueueListener listener) {
        this.settings = settings;
        this.directories = directories;
        this.listener = listener;
        reader = new BatchReader(type);
        segment = Segment.create(directories, settings.slots(), settings.slotBytes());
    }

    /** The segment for a new connection. */
    Segment openSegment() {
        if (isUsed) {
            segment.close();
            segment = Segment.create(directories, settings.slots(), settings.slotBytes());
        }
        isUsed = true;
        return segment;
    }

    Segment segment() {
        return segment;
    }

    /** Emits the rows of a BATCH; the caller then gives the slot back. */
    void onBatch(Frame frame) throws Exception {
        long slot = frame.value();
        MessageMetadata.require(
                slot >= 0 && slot < segment.slots(), "slot %s of %s", slot, segment.slots());
        reader.open(segment.slot((int) slot), frame.messageBytes());
        MessageMetadata.require(
                reader.rows() == frame.rows() && frame.rows() > 0,
                "%s rows, not %s as announced",
                reader.rows(),
                frame.rows());
        bytes += frame.messageBytes();
        emit();
    }

    /** Emits the rows of an OVERSIZE message; the caller then lets the process close its file. */
    void onOversize(long messageBytes, Path path) throws Exception {
        MessageMetadata.require(
                messageBytes > 0 && messageBytes <= settings.maxRowBytes(),
                "an oversized message of %s bytes",
                messageBytes);
        try (Segment file = Segment.open(path, (int) messageBytes)) {
            reader.open(file.slot(0), (int) messageBytes);
            bytes += messageBytes;
            emit();
        }
    }

    private void emit() throws Exception {
        int batchRows = reader.rows();
        for (int i = 0; i < batchRows; i++) {
            boolean hasTimestamp = reader.hasTimestamp(i);
            listener.onRow(reader.row(i), hasTimestamp, hasTimestamp ? reader.timestamp(i) : 0);
        }
        rows += batchRows;
    }

    long rows() {
        return rows;
    }

    long bytes() {
        return bytes;
    }

    @Override
    public void close() {
        segment.close();
    }
}
