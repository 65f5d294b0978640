package org.headrace.exchange;

import org.apache.flink.annotation.Internal;

import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

import java.io.EOFException;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.io.RandomAccessFile;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.PosixFilePermissions;
import java.util.List;
import java.util.OptionalInt;

/**
 * An open file with the state of an algorithm process: one that the process has offered, or one that was
 * read from a checkpoint. It stays readable after the end of the process.
 *
 * <p>Not a channel: an interrupt closes a channel, and what reads here may be interrupted when a checkpoint
 * is aborted, while others still need the file.
 *
 * <p>Thread model: any; a read holds a lock for one piece. After {@link #close} reads fail.
 */
@Internal
public final class StateFile implements AutoCloseable {

    private static final Logger LOG = LoggerFactory.getLogger(StateFile.class);
    private static final int PIECE_BYTES = 1 << 18;

    private final RandomAccessFile file;
    private final Path path;
    private final long bytes;
    private final OptionalInt number;

    private StateFile(RandomAccessFile file, Path path, long bytes, OptionalInt number) {
        this.file = file;
        this.path = path;
        this.bytes = bytes;
        this.number = number;
    }

    /**
     * Opens what the process has offered.
     *
     * @throws MalformedMessageException if there is no file of that size; the process may have died since
     */
    static StateFile open(StateOffer offer) {
        RandomAccessFile file = null;
        try {
            MessageMetadata.require(Files.isRegularFile(offer.path()), "no state file %s", offer.path());
            file = new RandomAccessFile(offer.path().toFile(), "r");
            MessageMetadata.require(
                    file.length() >= offer.bytes(), "a state file of %s bytes, not %s", file.length(), offer.bytes());
            return new StateFile(file, offer.path(), offer.bytes(), OptionalInt.of(offer.number()));
        } catch (IOException | RuntimeException e) {
            closeQuietly(file, offer.path());
            throw e instanceof MalformedMessageException malformed
                    ? malformed
                    : new MalformedMessageException("The state file " + offer.path() + " cannot be opened", e);
        }
    }

    /**
     * Copies a state into a file without a name, in the first of {@code directories} that has room. Blocks.
     *
     * @throws ExchangeException if none has room; names each reason
     * @throws IOException if the stream fails, or ends early
     */
    public static StateFile copy(InputStream state, long bytes, List<Path> directories) throws IOException {
        StringBuilder failures = new StringBuilder();
        for (Path directory : directories) {
            RandomAccessFile file = null;
            Path path = directory;
            try {
                Files.createDirectories(directory);
                long usable = Files.getFileStore(directory).getUsableSpace();
                if (usable < bytes) {
                    throw new IOException(bytes + " bytes needed, " + usable + " free");
                }
                Path name =
                        Files.createTempFile(
                                directory.toRealPath(),
                                Segment.PREFIX,
                                null,
                                PosixFilePermissions.asFileAttribute(PosixFilePermissions.fromString("rw-------")));
                try {
                    file = new RandomAccessFile(name.toFile(), "rw");
                    path = Segment.pathOfOpenFile(name);
                } finally {
                    Files.delete(name);
                }
            } catch (IOException e) {
                closeQuietly(file, path);
                failures.append(' ').append(directory).append(": ").append(e.getMessage()).append('.');
                continue;
            }
            try {
                fill(file, state, bytes, directory);
                return new StateFile(file, path, bytes, OptionalInt.empty());
            } catch (IOException | RuntimeException e) {
                closeQuietly(file, path);
                throw e;
            }
        }
        throw new ExchangeException(
                String.format(
                        "No room for the state of %d bytes that a process is to go on with.%s Flink's `io.tmp.dirs`"
                                + " names the directories; make room in one of them.",
                        bytes, failures));
    }

    private static void fill(RandomAccessFile file, InputStream state, long bytes, Path directory)
            throws IOException {
        byte[] piece = new byte[(int) Math.min(PIECE_BYTES, bytes)];
        for (long left = bytes; left > 0; ) {
            int read = state.read(piece, 0, (int) Math.min(piece.length, left));
            if (read < 0) {
                throw new EOFException("The checkpoint ends " + left + " bytes before the end of a state");
            }
            try {
                file.write(piece, 0, read);
            } catch (IOException e) {
                throw new ExchangeException(
                        String.format(
                                "A state of %d bytes cannot be written to %s: %s. Flink's `io.tmp.dirs` names the"
                                        + " directories; make room there.",
                                bytes, directory, e.getMessage()),
                        e);
            }
            left -= read;
        }
    }

    /** The number by which the process that has offered it knows it; empty if it is a copy. */
    OptionalInt number() {
        return number;
    }

    /** Bytes of the state. */
    public long bytes() {
        return bytes;
    }

    /** Where a process of this user opens it: only sure as long as this is open, if it is a copy. */
    public Path path() {
        return path;
    }

    /** Writes the whole state to {@code sink}. Blocks; may run on several threads at once. */
    public void writeTo(OutputStream sink) throws IOException {
        byte[] piece = new byte[(int) Math.min(PIECE_BYTES, bytes)];
        for (long at = 0; at < bytes; ) {
            int read;
            synchronized (file) {
                file.seek(at);
                read = file.read(piece, 0, (int) Math.min(piece.length, bytes - at));
            }
            if (read < 0) {
                throw new EOFException(path + " has become shorter than " + bytes + " bytes");
            }
            sink.write(piece, 0, read);
            at += read;
        }
    }

    /** Closes the file. Idempotent. */
    @Override
    public void close() {
        closeQuietly(file, path);
    }

    private static void closeQuietly(RandomAccessFile file, Path path) {
        if (file == null) {
            return;
        }
        try {
            file.close();
        } catch (IOException e) {
            LOG.warn("Cannot close {}", path, e);
        }
    }
}
