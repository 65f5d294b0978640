package org.headrace.tfrecord;

import org.apache.flink.core.fs.Path;

/** Where a record begins; for texts of errors. */
final class RecordPlace {

    private final Path path;
    private final Compression compression;
    private final long offset;

    RecordPlace(Path path, Compression compression, long offset) {
        this.path = path;
        this.compression = compression;
        this.offset = offset;
    }

    @Override
    public String toString() {
        String content = compression == Compression.NONE ? "" : " of its content (" + compression.name() + ")";
        return String.format("TFRecord file %s, record at byte %d%s", path, offset, content);
    }
}
