package org.headrace.tfrecord;

import org.apache.flink.connector.file.src.FileSourceSplit;
import org.apache.flink.connector.file.src.reader.BulkFormat;
import org.apache.flink.connector.file.src.util.ArrayResultIterator;
import org.apache.flink.connector.file.src.util.CheckpointedPosition;
import org.apache.flink.runtime.execution.SuppressRestartsException;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.types.logical.RowType;

import java.io.IOException;

/**
 * Reads the rows of one file, some at a time.
 *
 * <p>A position is the offset of the first record of a batch, in the content of the file, and how many records
 * behind it were taken. A file that cannot be read fails the job for good: it would fail again.
 *
 * <p>Thread Model: used by one thread at a time, Flink's fetcher thread; blocks on reads.
 */
final class TfRecordReader implements BulkFormat.Reader<RowData> {

    private static final int BATCH_ROWS = 1024;
    private static final int BATCH_BYTES = 1 << 20;

    private final RecordStream records;
    private final ExampleReader examples;
    private long recordsToSkip;

    private TfRecordReader(RecordStream records, RowType type, long recordsToSkip) {
        this.records = records;
        this.examples = new ExampleReader(type);
        this.recordsToSkip = recordsToSkip;
    }

    /** Opens the file of a split, where its reader was when the split was saved. */
    static TfRecordReader open(FileSourceSplit split, RowType type) throws IOException {
        CheckpointedPosition position =
                split.getReaderPosition().orElse(new CheckpointedPosition(split.offset(), 0L));
        long offset = position.getOffset() == CheckpointedPosition.NO_OFFSET ? 0L : position.getOffset();
        try {
            RecordStream records = RecordStream.open(split.path(), offset);
            return new TfRecordReader(records, type, position.getRecordsAfterOffset());
        } catch (TfRecordException e) {
            throw new SuppressRestartsException(e);
        }
    }

    @Override
    public BulkFormat.RecordIterator<RowData> readBatch() throws IOException {
        try {
            return readRows();
        } catch (TfRecordException e) {
            throw new SuppressRestartsException(e);
        }
    }

    private BulkFormat.RecordIterator<RowData> readRows() throws IOException {
        records.skip(recordsToSkip);
        recordsToSkip = 0;
        RowData[] rows = new RowData[BATCH_ROWS];
        int count = 0;
        long offset = records.offset();
        while (count < BATCH_ROWS && records.offset() - offset < BATCH_BYTES && records.next()) {
            rows[count++] = row();
        }
        if (count == 0) {
            return null;
        }
        ArrayResultIterator<RowData> batch = new ArrayResultIterator<>();
        batch.set(rows, count, offset, 0L);
        return batch;
    }

    private RowData row() throws TfRecordException {
        try {
            return examples.read(records.buffer(), records.start(), records.length());
        } catch (WireFormatException e) {
            throw TfRecordException.noExample(records.place(), e);
        } catch (MisfitException e) {
            throw TfRecordException.misfit(records.place(), e);
        }
    }

    @Override
    public void close() throws IOException {
        records.close();
    }
}
