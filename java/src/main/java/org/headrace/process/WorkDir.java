package org.headrace.process;

import org.apache.flink.annotation.Internal;

import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

import java.io.IOException;
import java.nio.file.FileVisitResult;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.SimpleFileVisitor;
import java.nio.file.attribute.BasicFileAttributes;
import java.nio.file.attribute.FileAttribute;
import java.nio.file.attribute.PosixFilePermission;
import java.nio.file.attribute.PosixFilePermissions;
import java.util.ArrayList;
import java.util.List;
import java.util.Set;
import java.util.concurrent.ThreadLocalRandom;

/**
 * The directory of one subtask, readable by its owner only, removed by {@link #close}. Not thread
 * safe; does short file operations on the calling thread.
 */
@Internal
public final class WorkDir implements AutoCloseable {

    private static final Logger LOG = LoggerFactory.getLogger(WorkDir.class);

    /** Linux refuses socket paths of 108 bytes and more. */
    private static final int MAX_SOCKET_PATH_BYTES = 100;

    private static final String SOCKET_NAME = "queue";

    private final Path path;
    private final List<Path> created = new ArrayList<>();

    /** Creates a new directory below one of Flink's temporary directories. */
    public WorkDir(List<String> tmpDirs) throws IOException {
        this(Path.of(tmpDirs.get(ThreadLocalRandom.current().nextInt(tmpDirs.size()))));
    }

    private WorkDir(Path parent) throws IOException {
        try {
            Files.createDirectories(parent);
            path = createOwnerOnly(parent);
        } catch (IOException e) {
            throw new WorkDirException("Cannot make a directory in " + parent, e);
        }
    }

    public Path path() {
        return path;
    }

    /** Writes a file that only the owner can read. */
    public Path write(String name, byte[] content) throws IOException {
        Path file = path.resolve(name);
        try {
            Files.deleteIfExists(file);
            Files.createFile(file, ownerOnly("rw-------"));
            return Files.write(file, content);
        } catch (IOException e) {
            throw new WorkDirException(String.format("Cannot write %s bytes to %s", content.length, file), e);
        }
    }

    /**
     * A path for a Unix socket, short enough for the operating system: in this directory, or in a
     * directory of its own below {@code java.io.tmpdir}.
     *
     * @throws IOException if both are too long
     */
    public Path socketPath() throws IOException {
        Path here = path.resolve(SOCKET_NAME);
        if (here.toString().getBytes().length <= MAX_SOCKET_PATH_BYTES) {
            return here;
        }
        Path elsewhere = createOwnerOnly(Path.of(System.getProperty("java.io.tmpdir"))).resolve(SOCKET_NAME);
        if (elsewhere.toString().getBytes().length <= MAX_SOCKET_PATH_BYTES) {
            return elsewhere;
        }
        throw new IOException(
                String.format(
                        "The paths %s and %s are too long for a Unix socket (limit %s bytes). Set `io.tmp.dirs`"
                                + " in Flink's configuration to a shorter path.",
                        here, elsewhere, MAX_SOCKET_PATH_BYTES));
    }

    /** Removes the directory with its content. Never throws; idempotent. */
    @Override
    public void close() {
        for (Path each : created) {
            remove(each);
        }
        created.clear();
    }

    /** Removes a directory with its content. Never throws. */
    static void remove(Path directory) {
        try {
            Files.walkFileTree(directory, new Remover());
        } catch (IOException e) {
            LOG.warn("Could not remove {}", directory, e);
        }
    }

    private Path createOwnerOnly(Path parent) throws IOException {
        Path directory = Files.createTempDirectory(parent, "headrace-", ownerOnly("rwx------"));
        created.add(directory);
        return directory;
    }

    private static FileAttribute<Set<PosixFilePermission>> ownerOnly(String permissions) {
        return PosixFilePermissions.asFileAttribute(PosixFilePermissions.fromString(permissions));
    }

    private static final class Remover extends SimpleFileVisitor<Path> {

        @Override
        public FileVisitResult visitFile(Path file, BasicFileAttributes attributes) throws IOException {
            Files.deleteIfExists(file);
            return FileVisitResult.CONTINUE;
        }

        @Override
        public FileVisitResult visitFileFailed(Path file, IOException failure) {
            return FileVisitResult.CONTINUE;
        }

        @Override
        public FileVisitResult postVisitDirectory(Path directory, IOException failure) throws IOException {
            Files.deleteIfExists(directory);
            return FileVisitResult.CONTINUE;
        }
    }
}
