package org.headrace.exchange;

import org.apache.flink.annotation.Internal;
import org.apache.flink.core.memory.MemorySegment;

import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.file.DirectoryStream;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.nio.file.attribute.PosixFilePermissions;
import java.util.ArrayList;
import java.util.EnumSet;
import java.util.HexFormat;
import java.util.List;
import java.util.Set;
import java.security.SecureRandom;

/**
 * Shared memory of one direction: a mapped file of equal slots.
 *
 * <p>A file that this side creates has a name for a moment only. The other side opens it through {@link
 * #path} in {@code /proc}, so the kernel frees it with its last user, however that ends.
 *
 * <p>It is written with zeros over its whole size before it is mapped: a sparse file on a full file system
 * would kill the process that touches it first.
 *
 * <p>Thread model: task thread only. Use after {@link #close} throws IllegalStateException.
 */
@Internal
public final class Segment implements AutoCloseable {

    /** Where segments live as long as it has room. */
    public static final Path SHARED_MEMORY = Path.of("/dev/shm");

    private static final Path OPEN_FILES = Path.of("/proc/self/fd");
    private static final Logger LOG = LoggerFactory.getLogger(Segment.class);
    static final String PREFIX = "headrace-";
    private static final int CHUNK_BYTES = 1 << 20;
    private static final SecureRandom RANDOM = new SecureRandom();

    private final Path path;
    private final int slotBytes;
    private final List<MappedMemory> slots;
    private final FileChannel file;

    private Segment(Path path, int slotBytes, List<MappedMemory> slots, FileChannel file) {
        this.path = path;
        this.slotBytes = slotBytes;
        this.slots = slots;
        this.file = file;
    }

    /** Returns /dev/shm, where there is one, and then {@code tmpDirs}. */
    public static List<Path> directories(List<Path> tmpDirs) {
        List<Path> all = new ArrayList<>();
        if (Files.isWritable(SHARED_MEMORY)) {
            all.add(SHARED_MEMORY);
        }
        all.addAll(tmpDirs);
        return all;
    }

    /**
     * Creates a segment in the first of {@code directories} that has room. Blocks while it writes.
     *
     * @throws ExchangeException if none has room; names each reason
     */
    public static Segment create(List<Path> directories, int slots, int slotBytes) {
        long bytes = (long) slots * slotBytes;
        StringBuilder failures = new StringBuilder();
        for (Path directory : directories) {
            try {
                Segment segment = create(directory, slots, slotBytes);
                if (failures.length() > 0) {
                    LOG.warn(
                            "A memory queue of {} bytes is in a file in {}, which is slower than"
                                    + " shared memory:{}",
                            bytes,
                            directory,
                            failures);
                }
                return segment;
            } catch (IOException e) {
                failures.append(' ').append(directory).append(": ").append(e.getMessage());
                failures.append('.');
            }
        }
        throw new ExchangeException(
                String.format(
                        "No room for a memory queue of %d bytes (`exchange.slots`=%d times"
                                + " `exchange.slot_bytes`=%d).%s Lower the settings, or make one of"
                                + " these directories larger.",
                        bytes, slots, slotBytes, failures));
    }

    private static Segment create(Path directory, int slots, int slotBytes) throws IOException {
        long bytes = (long) slots * slotBytes;
        long usable = Files.getFileStore(directory).getUsableSpace();
        if (usable < bytes) {
            throw new IOException(bytes + " bytes needed, " + usable + " free");
        }
        Set<StandardOpenOption> options =
                EnumSet.of(
                        StandardOpenOption.CREATE_NEW,
                        StandardOpenOption.READ,
                        StandardOpenOption.WRITE);
        Path name = directory.toRealPath().resolve(PREFIX + randomName());
        FileChannel file =
                FileChannel.open(
                        name,
                        options,
                        PosixFilePermissions.asFileAttribute(
                                PosixFilePermissions.fromString("rw-------")));
        try {
            Path path;
            try {
                path = pathOfOpenFile(name);
            } finally {
                Files.delete(name);
            }
            writeZeros(file, bytes);
            return new Segment(path, slotBytes, map(file, slots, slotBytes), file);
        } catch (IOException | RuntimeException e) {
            file.close();
            throw e;
        }
    }

    /** Under which path other processes of this user find a file that is open here, without its name. */
    static Path pathOfOpenFile(Path name) throws IOException {
        try (DirectoryStream<Path> descriptors = Files.newDirectoryStream(OPEN_FILES)) {
            for (Path descriptor : descriptors) {
                if (linkTarget(descriptor).equals(name.toString())) {
                    return Path.of(
                            "/proc",
                            String.valueOf(ProcessHandle.current().pid()),
                            "fd",
                            descriptor.getFileName().toString());
                }
            }
        }
        throw new IOException(name + " is open, but not listed in " + OPEN_FILES);
    }

    private static String linkTarget(Path descriptor) throws IOException {
        try {
            return Files.readSymbolicLink(descriptor).toString();
        } catch (NoSuchFileException e) {
            return ""; // another thread has just closed it
        }
    }

    /**
     * Maps a file of one message that the process has written.
     *
     * @throws MalformedMessageException if it is no file of at least {@code bytes} bytes
     */
    static Segment open(Path path, int bytes) {
        try {
            if (!Files.isRegularFile(path)) {
                throw new MalformedMessageException("No file for an oversized batch: " + path);
            }
            try (FileChannel file =
                    FileChannel.open(
                            path,
                            EnumSet.of(StandardOpenOption.READ, StandardOpenOption.WRITE))) {
                if (file.size() < bytes) {
                    throw new MalformedMessageException(
                            String.format(
                                    "File of an oversized batch has %d bytes, not %d: %s",
                                    file.size(), bytes, path));
                }
                return new Segment(path, bytes, map(file, 1, bytes), file);
            }
        } catch (IOException e) {
            throw new ExchangeException("Cannot map the file of an oversized batch: " + path, e);
        }
    }

    private static void writeZeros(FileChannel channel, long bytes) throws IOException {
        ByteBuffer zeros = ByteBuffer.allocate((int) Math.min(CHUNK_BYTES, bytes));
        for (long left = bytes; left > 0; ) {
            zeros.clear().limit((int) Math.min(zeros.capacity(), left));
            left -= channel.write(zeros);
        }
    }

    private static List<MappedMemory> map(FileChannel channel, int slots, int slotBytes)
            throws IOException {
        List<MappedMemory> mapped = new ArrayList<>(slots);
        try {
            for (int slot = 0; slot < slots; slot++) {
                mapped.add(MappedMemory.map(channel, (long) slot * slotBytes, slotBytes));
            }
        } catch (IOException | RuntimeException e) {
            mapped.forEach(MappedMemory::close);
            throw e;
        }
        return mapped;
    }

    /** Where other processes of this user open it, until {@link #withdraw}. */
    public Path path() {
        return path;
    }

    public int slots() {
        return slots.size();
    }

    public int slotBytes() {
        return slotBytes;
    }

    /** The memory of one slot; valid until {@link #close}. */
    public MemorySegment slot(int slot) {
        return slots.get(slot).memory();
    }

    /** Nobody else can open it from now on; the memory stays for whoever has mapped it. Idempotent. */
    public void withdraw() {
        try {
            file.close();
        } catch (IOException e) {
            LOG.warn("Cannot close {}", path, e);
        }
    }

    /** Withdraws and unmaps. Idempotent. */
    @Override
    public void close() {
        withdraw();
        slots.forEach(MappedMemory::close);
    }

    private static String randomName() {
        byte[] bytes = new byte[12];
        RANDOM.nextBytes(bytes);
        return HexFormat.of().formatHex(bytes);
    }
}
