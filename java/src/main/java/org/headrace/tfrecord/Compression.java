package org.headrace.tfrecord;

import org.apache.commons.compress.compressors.gzip.GzipCompressorInputStream;
import org.apache.flink.configuration.DescribedEnum;
import org.apache.flink.configuration.description.InlineElement;
import org.apache.flink.configuration.description.TextElement;

import java.io.BufferedOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.util.zip.Deflater;
import java.util.zip.DeflaterOutputStream;
import java.util.zip.GZIPOutputStream;
import java.util.zip.Inflater;
import java.util.zip.InflaterInputStream;
import java.util.zip.ZipException;

/** How a whole TFRecord file is compressed; the names are those of tf.io.TFRecordOptions. */
enum Compression implements DescribedEnum {
    NONE("not compressed"),
    GZIP("RFC 1952"),
    ZLIB("RFC 1950");

    private static final int BUFFER_BYTES = 1 << 16;
    private static final int ZLIB_METHOD = 8;

    private final String description;

    Compression(String description) {
        this.description = description;
    }

    @Override
    public InlineElement getDescription() {
        return TextElement.text(description);
    }

    /**
     * Tells from the beginning of a file how it is compressed.
     *
     * <p>What begins with a record whose length has the right checksum is not compressed: a length may look
     * like the beginning of a compressed file, but not with that checksum, or once in four billion files.
     *
     * @param head the first bytes, at least {@link RecordStream#HEADER_BYTES} of them if the file has them
     * @param length how many are there
     */
    static Compression detect(byte[] head, int length) {
        if (length >= RecordStream.HEADER_BYTES && RecordStream.isHeader(head, 0)) {
            return NONE;
        }
        if (length < 2) {
            return NONE;
        }
        int first = head[0] & 0xff;
        int second = head[1] & 0xff;
        if (first == 0x1f && second == 0x8b) {
            return GZIP;
        }
        boolean isZlib = (first & 0x0f) == ZLIB_METHOD && first >> 4 <= 7 && (first << 8 | second) % 31 == 0;
        return isZlib ? ZLIB : NONE;
    }

    /**
     * The content of a file.
     *
     * <p>Not by Java's own reader of gzip: where the header of a further member is cut or damaged, it says that
     * the file ends there.
     */
    InputStream decompress(InputStream file) throws IOException {
        switch (this) {
            case GZIP:
                return new GzipCompressorInputStream(file, true);
            case ZLIB:
                return new SingleZlibStream(file);
            default:
                return file;
        }
    }

    /** A stream into {@code file} whose end is {@link #finish}; it may hold back what is written until then. */
    OutputStream compress(OutputStream file) throws IOException {
        switch (this) {
            case GZIP:
                return new GZIPOutputStream(file, BUFFER_BYTES) {
                    @Override
                    public void finish() throws IOException {
                        super.finish();
                        def.end();
                    }
                };
            case ZLIB:
                return new DeflaterOutputStream(file, new Deflater(), BUFFER_BYTES) {
                    @Override
                    public void finish() throws IOException {
                        super.finish();
                        def.end();
                    }
                };
            default:
                return new BufferedOutputStream(file, BUFFER_BYTES);
        }
    }

    /** Writes what a stream of {@link #compress} holds back, and the end; the file stays open. Call it once. */
    static void finish(OutputStream content) throws IOException {
        if (content instanceof DeflaterOutputStream) {
            ((DeflaterOutputStream) content).finish();
        }
        content.flush();
    }

    /** A zlib stream that is all of the file: what Java would pass over behind it is an error. */
    private static final class SingleZlibStream extends InflaterInputStream {

        SingleZlibStream(InputStream in) {
            super(in, new Inflater(), BUFFER_BYTES);
        }

        @Override
        public int read(byte[] target, int start, int length) throws IOException {
            int count = super.read(target, start, length);
            if (count < 0 && (inf.getRemaining() > 0 || in.read() >= 0)) {
                throw new ZipException("bytes follow the end of the zlib stream");
            }
            return count;
        }

        @Override
        public void close() throws IOException {
            inf.end();
            super.close();
        }
    }
}
