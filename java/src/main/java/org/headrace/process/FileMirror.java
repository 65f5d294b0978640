package org.headrace.process;

import org.apache.flink.annotation.Internal;
import org.apache.flink.core.fs.FSDataInputStream;
import org.apache.flink.core.fs.FileStatus;
import org.apache.flink.core.fs.FileSystem;
import org.apache.flink.core.fs.Path;

import org.headrace.plan.MirrorPlan;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

import java.io.IOException;
import java.io.InterruptedIOException;
import java.io.OutputStream;
import java.nio.file.Files;
import java.nio.file.StandardCopyOption;
import java.nio.file.attribute.FileTime;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;

/**
 * A copy of a file or directory, from any file system that Flink reads, beside a child process. The
 * link {@link #link} points to the copy; where the plan says so, it is pointed to a newer copy when
 * the original has changed. Files of a copy have the times of the originals. A copy that was
 * replaced stays until the one after it is there, for who still reads it.
 *
 * <p>Thread model: {@link #fetch} blocks for as long as copying takes, on the child's own thread, and
 * starts the thread that looks for changes. {@link #close} interrupts both and waits 3 s at most.
 * Whatever the file system says to that thread is logged, and it looks again.
 */
@Internal
public final class FileMirror implements AutoCloseable {

    private static final Logger LOG = LoggerFactory.getLogger(FileMirror.class);
    private static final Duration SETTLE = Duration.ofSeconds(1);
    private static final int FIRST_TRIES = 5;
    private static final long CLOSE_WAIT_MS = 3_000;
    private static final int BUFFER_BYTES = 1 << 16;

    private final MirrorPlan plan;
    private final java.nio.file.Path directory;
    private final String threadName;
    private final Object lock = new Object();

    private Thread fetcher;
    private Thread follower;
    private boolean isClosed;

    private int copies;
    private java.nio.file.Path former;
    private java.nio.file.Path present;

    /** One file of the original. */
    private record Original(Path path, String name, long changedMs, long bytes) {}

    /** @param directory where the copies and the link are made; does not exist yet */
    public FileMirror(MirrorPlan plan, java.nio.file.Path directory, String threadName) {
        this.plan = plan;
        this.directory = directory;
        this.threadName = threadName;
    }

    /** Points to the newest whole copy, once {@link #fetch} has returned. */
    public java.nio.file.Path link() {
        return directory.resolve("current");
    }

    /**
     * Copies the original if that has not been done yet.
     *
     * @throws MirrorException if it cannot be read or written
     */
    public void fetch() throws IOException, InterruptedException {
        synchronized (lock) {
            if (isClosed) {
                throw new InterruptedException("The operator was closed.");
            }
            if (present != null) {
                return;
            }
            fetcher = Thread.currentThread();
        }
        List<Original> found;
        try {
            found = copyFirst();
        } catch (IOException e) {
            throw new MirrorException(plan.uri(), e);
        } finally {
            synchronized (lock) {
                fetcher = null;
                lock.notifyAll();
            }
        }
        synchronized (lock) {
            if (!isClosed && plan.isFollowed()) {
                follower = new Thread(() -> follow(found), threadName + " mirror");
                follower.setDaemon(true);
                follower.start();
            }
        }
    }

    /** Ends the copying; what was copied is left for the owner of the directory. Idempotent. */
    @Override
    public void close() {
        try {
            synchronized (lock) {
                isClosed = true;
                if (fetcher != null) {
                    fetcher.interrupt();
                    lock.wait(CLOSE_WAIT_MS);
                }
            }
            if (follower != null) {
                follower.interrupt();
                follower.join(CLOSE_WAIT_MS);
            }
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
        }
    }

    private void follow(List<Original> copied) {
        List<Original> known = copied;
        try {
            while (isOpen()) { // a client of a file system may swallow the interrupt
                Thread.sleep(plan.every().toMillis());
                try {
                    List<Original> found = list();
                    if (found.equals(known)) {
                        continue;
                    }
                    Thread.sleep(Math.min(SETTLE.toMillis(), plan.every().toMillis()));
                    if (found.equals(list()) && copy(found)) {
                        known = found;
                        LOG.info("{} has changed and was copied to {}", plan.uri(), present);
                    }
                } catch (IOException | RuntimeException e) {
                    if (isOpen()) {
                        LOG.warn("{} could not be looked at or copied; the copy from before stays", plan.uri(), e);
                    }
                }
            }
        } catch (InterruptedException e) {
            LOG.debug("{} is no longer followed", plan.uri());
        }
    }

    /** Copies until the original has not changed meanwhile. */
    private List<Original> copyFirst() throws IOException {
        for (int i = 0; i < FIRST_TRIES; i++) {
            List<Original> found = list();
            if (copy(found)) {
                return found;
            }
        }
        throw new IOException("it changed during each of " + FIRST_TRIES + " copies");
    }

    private List<Original> list() throws IOException {
        Path root = new Path(plan.uri());
        FileSystem system = root.getFileSystem();
        FileStatus status = system.getFileStatus(root);
        List<Original> found = new ArrayList<>();
        add(system, status, rootName(), found);
        if (found.isEmpty()) {
            throw new IOException("it is an empty directory");
        }
        found.sort((a, b) -> a.name().compareTo(b.name()));
        return found;
    }

    /** Frameworks look at the ending of a file's name, so it is kept. */
    private String rootName() {
        String name = new Path(plan.uri()).getName();
        return name.isEmpty() ? "root" : name;
    }

    private static void add(FileSystem system, FileStatus status, String name, List<Original> found)
            throws IOException {
        if (!status.isDir()) {
            found.add(new Original(status.getPath(), name, status.getModificationTime(), status.getLen()));
            return;
        }
        FileStatus[] children = system.listStatus(status.getPath());
        if (children == null) {
            throw new IOException(status.getPath() + " went away while it was listed");
        }
        for (FileStatus child : children) {
            add(system, child, name + "/" + child.getPath().getName(), found);
        }
    }

    /** Returns false if the original changed meanwhile. Leaves no trace then, and none of a failure. */
    private boolean copy(List<Original> originals) throws IOException {
        java.nio.file.Path folder = directory.resolve("copy-" + copies++);
        boolean isWhole = false;
        try {
            for (Original each : originals) {
                requireOpen(); // the directory may be gone for good
                java.nio.file.Path target = folder.resolve(each.name());
                Files.createDirectories(target.getParent());
                copy(each, target);
            }
            isWhole = originals.equals(list());
        } finally {
            if (!isWhole) {
                WorkDir.remove(folder);
            }
        }
        if (!isWhole) {
            return false;
        }
        java.nio.file.Path next = directory.resolve("next");
        Files.deleteIfExists(next);
        Files.createSymbolicLink(next, folder.resolve(rootName()));
        Files.move(next, link(), StandardCopyOption.ATOMIC_MOVE);
        if (former != null) {
            WorkDir.remove(former);
        }
        former = present;
        present = folder;
        return true;
    }

    private boolean isOpen() {
        synchronized (lock) {
            return !isClosed;
        }
    }

    private void requireOpen() throws InterruptedIOException {
        if (!isOpen()) {
            throw new InterruptedIOException("The operator was closed.");
        }
    }

    private void copy(Original original, java.nio.file.Path target) throws IOException {
        byte[] buffer = new byte[BUFFER_BYTES];
        try (FSDataInputStream in = original.path().getFileSystem().open(original.path());
                OutputStream out = Files.newOutputStream(target)) {
            for (int count = in.read(buffer); count >= 0; count = in.read(buffer)) {
                out.write(buffer, 0, count);
                requireOpen();
            }
        }
        Files.setLastModifiedTime(target, FileTime.fromMillis(original.changedMs()));
    }
}
