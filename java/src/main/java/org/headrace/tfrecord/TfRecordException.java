package org.headrace.tfrecord;

import org.apache.flink.annotation.Internal;

import java.io.IOException;

/** A file, or a row that is to be written, is not what it must be. Trying again does not help. */
@Internal
public final class TfRecordException extends IOException {

    private static final long serialVersionUID = 1L;

    private TfRecordException(String text, Throwable cause) {
        super(text, cause);
    }

    /** Bytes are not as they were written, or the file was never a TFRecord file. */
    static TfRecordException damaged(RecordPlace place, String what) {
        return damaged(place, what, null);
    }

    static TfRecordException damaged(RecordPlace place, String what, Throwable cause) {
        return new TfRecordException(
                String.format(
                        "%s: %s. The file is damaged, was not written to its end, or is no TFRecord file."
                                + " No row behind this place was read. Write it again from its source, or"
                                + " move it out of the directory.",
                        place, what),
                cause);
    }

    static TfRecordException wrongChecksum(RecordPlace place, String ofWhat, int expected, int actual) {
        return damaged(
                place,
                String.format(
                        "%s has the masked CRC-32C 0x%08x, but the file says 0x%08x", ofWhat, actual, expected));
    }

    static TfRecordException tooLong(RecordPlace place, long recordBytes, long limitBytes) {
        return new TfRecordException(
                String.format(
                        "%s: the record has %s bytes; the most that can be read is %d. Split it where it is"
                                + " written.",
                        place, Long.toUnsignedString(recordBytes), limitBytes),
                null);
    }

    /** The record is intact, but no tf.Example. */
    static TfRecordException noExample(RecordPlace place, WireFormatException cause) {
        return new TfRecordException(
                String.format(
                        "%s: the record is intact, but is no tf.Example: %s. Only serialized tf.train.Example"
                                + " messages can be read as rows.",
                        place, cause.getMessage()),
                cause);
    }

    /** A feature does not fit the column that was declared for it. */
    static TfRecordException misfit(RecordPlace place, MisfitException cause) {
        return new TfRecordException(String.format("%s: %s", place, cause.getMessage()), cause);
    }

    static TfRecordException nullInArray(String column, int index) {
        return new TfRecordException(
                String.format(
                        "Column `%s`: element %d of the array is NULL, which a tf.Example cannot hold. Replace"
                                + " it in the query, for example by COALESCE where the array is made.",
                        column, index),
                null);
    }

    static TfRecordException rowTooLarge(long bytes) {
        return new TfRecordException(
                String.format(
                        "A row needs at least %d bytes as a tf.Example; a protobuf message has at most 2 GiB."
                                + " Split the row.",
                        bytes),
                null);
    }
}
