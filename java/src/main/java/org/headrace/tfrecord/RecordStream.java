package org.headrace.tfrecord;

import org.apache.flink.core.fs.FSDataInputStream;
import org.apache.flink.core.fs.Path;

import java.io.Closeable;
import java.io.EOFException;
import java.io.IOException;
import java.io.InputStream;

/**
 * The records of one TFRecord file, checked, one after the other.
 *
 * <p>A record is its length (8 bytes), the checksum of the length, its bytes, the checksum of the bytes. After
 * {@link #next} its bytes are in {@link #buffer} until the following call. Memory is taken only for bytes that
 * were read, so a wrong length costs none.
 *
 * <p>Not safe for several threads; reads block. Source: tensorflow: core/lib/io/record_reader.h.
 */
final class RecordStream implements Closeable {

    static final int HEADER_BYTES = Long.BYTES + Integer.BYTES;
    static final int FOOTER_BYTES = Integer.BYTES;

    private static final int LEAST_BUFFER_BYTES = 1 << 18;
    private static final int MAX_ARRAY_BYTES = Integer.MAX_VALUE - 8;
    private static final long MAX_RECORD_BYTES = MAX_ARRAY_BYTES - HEADER_BYTES - FOOTER_BYTES;

    private final Path path;
    private final Compression compression;
    private final long contentBytes;
    private final WatchedFile file;
    private final InputStream content;
    private final MaskedCrc crc = new MaskedCrc();

    private byte[] buffer = new byte[LEAST_BUFFER_BYTES];
    private int begin; // of what was not consumed yet
    private int end; // of what was read
    private long offset; // of buffer[begin] in the content
    private long recordOffset;
    private int recordStart;
    private int recordLength;

    private RecordStream(
            Path path,
            Compression compression,
            long contentBytes,
            WatchedFile file,
            InputStream content,
            long offset) {
        this.path = path;
        this.compression = compression;
        this.contentBytes = contentBytes;
        this.file = file;
        this.content = content;
        this.offset = offset;
    }

    /**
     * Opens a file at the beginning of a record; finds out how the file is compressed.
     *
     * @param offset where the record begins, in the content
     */
    static RecordStream open(Path path, long offset) throws IOException {
        long fileBytes = path.getFileSystem().getFileStatus(path).getLen();
        FSDataInputStream file = path.getFileSystem().open(path);
        try {
            byte[] head = new byte[HEADER_BYTES];
            Compression compression = Compression.detect(head, file.readNBytes(head, 0, head.length));
            if (compression == Compression.NONE) {
                if (offset > fileBytes) {
                    String what = "the file has only " + fileBytes + " bytes: another one than when it was read";
                    throw TfRecordException.damaged(new RecordPlace(path, compression, offset), what);
                }
                file.seek(offset);
                WatchedFile watched = new WatchedFile(file);
                return new RecordStream(path, compression, fileBytes, watched, watched, offset);
            }
            file.seek(0);
            return compressed(path, compression, new WatchedFile(file), offset);
        } catch (IOException | RuntimeException e) {
            file.close();
            throw e;
        }
    }

    private static RecordStream compressed(
            Path path, Compression compression, WatchedFile file, long offset) throws IOException {
        try {
            InputStream content = compression.decompress(file);
            content.skipNBytes(offset);
            return new RecordStream(path, compression, Long.MAX_VALUE, file, content, offset);
        } catch (IOException e) {
            throw file.hasFailed() ? e : undecodable(new RecordPlace(path, compression, offset), compression, e);
        }
    }

    static boolean isHeader(byte[] bytes, int start) {
        return new MaskedCrc().of(bytes, start, Long.BYTES) == LittleEndian.getInt(bytes, start + Long.BYTES);
    }

    /** Whether there is a further record; reads it. */
    boolean next() throws IOException {
        recordOffset = offset;
        int there = read(HEADER_BYTES);
        if (there == 0) {
            return false;
        }
        if (there < HEADER_BYTES) {
            throw truncated(HEADER_BYTES, there);
        }
        long length = LittleEndian.getLong(buffer, begin);
        check("its length " + Long.toUnsignedString(length), begin, Long.BYTES);
        if (length < 0 || length > MAX_RECORD_BYTES) {
            throw TfRecordException.tooLong(place(), length, MAX_RECORD_BYTES);
        }
        int frameBytes = HEADER_BYTES + (int) length + FOOTER_BYTES;
        if (frameBytes > contentBytes - offset) {
            throw truncated(frameBytes, contentBytes - offset);
        }
        there = read(frameBytes);
        if (there < frameBytes) {
            throw truncated(frameBytes, there);
        }
        recordStart = begin + HEADER_BYTES;
        recordLength = (int) length;
        check("its data of " + length + " bytes", recordStart, recordLength);
        begin += frameBytes;
        offset += frameBytes;
        return true;
    }

    /** Passes over records that were read before. */
    void skip(long records) throws IOException {
        for (long i = 0; i < records; i++) {
            if (!next()) {
                String what = String.format("the file ends, but %d more records were read before", records - i);
                throw TfRecordException.damaged(place(), what);
            }
        }
    }

    /** Holds the record from {@link #start} on. */
    byte[] buffer() {
        return buffer;
    }

    int start() {
        return recordStart;
    }

    int length() {
        return recordLength;
    }

    /** Where the next record begins, in the content. */
    long offset() {
        return offset;
    }

    /** Where the present record begins. */
    RecordPlace place() {
        return new RecordPlace(path, compression, recordOffset);
    }

    @Override
    public void close() throws IOException {
        content.close();
    }

    private void check(String what, int start, int length) throws TfRecordException {
        int expected = LittleEndian.getInt(buffer, start + length);
        int actual = crc.of(buffer, start, length);
        if (actual != expected) {
            throw TfRecordException.wrongChecksum(place(), what, expected, actual);
        }
    }

    private TfRecordException truncated(long needed, long there) {
        String what = String.format("it takes %d bytes, but the file ends after %d", needed, there);
        return TfRecordException.damaged(place(), what);
    }

    /** Reads until {@code wanted} bytes are there or the file ends; says how many there are, at most so many. */
    private int read(int wanted) throws IOException {
        if (begin == end) {
            begin = 0;
            end = 0;
        }
        while (end - begin < wanted) {
            if (end == buffer.length) {
                makeRoom(wanted);
            }
            int count = readSome();
            if (count < 0) {
                return end - begin;
            }
            end += count;
        }
        return wanted;
    }

    private int readSome() throws IOException {
        try {
            return content.read(buffer, end, buffer.length - end);
        } catch (IOException e) {
            throw file.hasFailed() ? e : undecodable(place(), compression, e);
        }
    }

    private static TfRecordException undecodable(RecordPlace place, Compression compression, IOException e) {
        String why = e instanceof EOFException ? "it ends too early" : e.getMessage();
        String what = String.format("decompressing failed (%s: %s)", compression.name(), why);
        return TfRecordException.damaged(place, what, e);
    }

    /** Moves what is there to the front: of this buffer if {@code wanted} fits into it, else of a larger one. */
    private void makeRoom(int wanted) {
        int there = end - begin;
        byte[] source = buffer;
        if (wanted > buffer.length) {
            buffer = new byte[(int) Math.min(wanted, 2L * buffer.length)];
        }
        System.arraycopy(source, begin, buffer, 0, there);
        begin = 0;
        end = there;
    }
}
