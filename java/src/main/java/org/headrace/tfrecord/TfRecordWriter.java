package org.headrace.tfrecord;

import org.apache.flink.api.common.serialization.BulkWriter;
import org.apache.flink.core.fs.FSDataOutputStream;
import org.apache.flink.runtime.execution.SuppressRestartsException;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.types.logical.RowType;

import java.io.IOException;
import java.io.OutputStream;

/**
 * Writes rows as the records of one TFRecord file. A row that cannot be written fails the job for good.
 *
 * <p>Thread Model: used by the task thread of the sink; blocks on writes.
 */
final class TfRecordWriter implements BulkWriter<RowData> {

    private static final int FEATURES = 1; // of Example

    private final ColumnWriter[] columns;
    private final OutputStream content;
    private final BackwardBuffer frame = new BackwardBuffer();
    private final MaskedCrc crc = new MaskedCrc();

    TfRecordWriter(FSDataOutputStream file, RowType type, Compression compression) throws IOException {
        columns = new ColumnWriter[type.getFieldCount()];
        for (int i = 0; i < columns.length; i++) {
            columns[i] = new ColumnWriter(type.getFieldNames().get(i), i, type.getTypeAt(i));
        }
        content = compression.compress(file);
    }

    @Override
    public void addElement(RowData row) throws IOException {
        try {
            encode(row);
        } catch (TfRecordException e) {
            throw new SuppressRestartsException(e);
        }
        content.write(frame.bytes(), frame.start(), frame.size());
    }

    /** Puts the frame of the row together: length, checksum, message, checksum. */
    private void encode(RowData row) throws TfRecordException {
        frame.clear();
        frame.prepend(RecordStream.FOOTER_BYTES);
        for (int i = columns.length - 1; i >= 0; i--) {
            columns[i].write(row, frame);
        }
        frame.wrap(FEATURES, RecordStream.FOOTER_BYTES);
        int length = frame.size() - RecordStream.FOOTER_BYTES;
        int header = frame.prepend(RecordStream.HEADER_BYTES);
        int data = header + RecordStream.HEADER_BYTES;
        byte[] bytes = frame.bytes();
        LittleEndian.putLong(bytes, header, length);
        LittleEndian.putInt(bytes, header + Long.BYTES, crc.of(bytes, header, Long.BYTES));
        LittleEndian.putInt(bytes, data + length, crc.of(bytes, data, length));
    }

    @Override
    public void flush() throws IOException {
        content.flush();
    }

    @Override
    public void finish() throws IOException {
        Compression.finish(content);
    }
}
