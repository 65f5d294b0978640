package org.headrace.process;

import org.apache.flink.annotation.Internal;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.node.ObjectNode;

import org.headrace.json.Lines;

import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStream;
import java.io.InputStreamReader;
import java.io.Writer;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayDeque;
import java.util.Deque;
import java.util.List;
import java.util.OptionalInt;
import java.util.OptionalLong;
import java.util.Set;
import java.util.concurrent.Callable;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.ThreadFactory;
import java.util.concurrent.TimeUnit;

/**
 * A Python child that talks JSON lines: docs/lifecycle.md, section 1.
 *
 * <p>Thread model: {@link #start}, {@link #send}, {@link #requestStop} and {@link #close} belong to
 * the task thread and, but for {@code close}, never block. Three daemon threads serve the child:
 * one prepares and starts it and reads its stdout, one logs its stderr line by line, one writes its
 * stdin. All end with the child; {@code close} ends the child. The {@link Listener} is called on these threads.
 */
@Internal
public final class ChildProcess implements AutoCloseable {

    private static final Logger LOG = LoggerFactory.getLogger(ChildProcess.class);
    private static final int LAST_LINES = 50;
    private static final long DRAIN_MS = 500;
    private static final Duration CLOSE_MARGIN = Duration.ofMillis(1_000);
    private static final String END_OF_LINES = "";

    /** What the child says. Called on the child's threads; must not block or throw. */
    public interface Listener {

        /** The child wrote a line. */
        void onLine(ObjectNode line);

        /** The child has ended, or could not be started or served. Called once, as the last call. */
        void onExit(ChildExit exit);
    }

    private final String threadName;
    private final Callable<ProcessBuilder> command;
    private final Listener listener;
    private final Duration stopGrace;
    private final ThreadFactory threads;

    private final LinkedBlockingQueue<String> outgoing = new LinkedBlockingQueue<>();
    private final Deque<String> lastLines = new ArrayDeque<>();
    private final Set<Long> groups = ConcurrentHashMap.newKeySet();
    private final CountDownLatch stdoutDone = new CountDownLatch(1);
    private final CountDownLatch stderrDone = new CountDownLatch(1);
    private final Object lock = new Object();

    private volatile String label;
    private Thread launcher;
    private Process process;
    private boolean isClosed;
    private volatile boolean isStopRequested;

    /**
     * Describes a child; nothing is started yet.
     *
     * @param label role and index, for example "worker-0"; the mark of its log lines
     * @param threadName stem of the names of its threads
     * @param command builds the command; runs on a thread of its own and may block
     * @param listener told of lines and the end
     * @param stopGrace how long the child has to end what it started
     */
    public ChildProcess(
            String label, String threadName, Callable<ProcessBuilder> command, Listener listener, Duration stopGrace) {
        this(label, threadName, command, listener, stopGrace, Thread::new);
    }

    ChildProcess(
            String label,
            String threadName,
            Callable<ProcessBuilder> command,
            Listener listener,
            Duration stopGrace,
            ThreadFactory threads) {
        this.label = label;
        this.threadName = threadName;
        this.command = command;
        this.listener = listener;
        this.stopGrace = stopGrace;
        this.threads = threads;
    }

    /** Starts the child in the background. Never blocks; a failure comes to the listener. */
    public void start(ObjectNode startLine) {
        send(startLine);
        launcher = daemon("stdout", this::runChild);
        launcher.start();
    }

    /** Queues a line for the child. Never blocks; a line to a dead child is dropped. */
    public void send(ObjectNode line) {
        outgoing.add(line.toString());
    }

    /** Asks the child to end what it runs and itself. Idempotent; never blocks. */
    public void requestStop(String reason) {
        if (!isStopRequested) {
            isStopRequested = true;
            send(Lines.ofType("stop").put("reason", reason));
        }
    }

    /** Whether the child was told to stop, so that its end is no failure. */
    public boolean isStopRequested() {
        return isStopRequested;
    }

    /** Gives it another mark in the log: it was started before it was known whose it would be. */
    public void rename(String newLabel) {
        label = newLabel;
    }

    /** Number of its process; empty if it has none yet. */
    public OptionalLong pid() {
        synchronized (lock) {
            return process == null ? OptionalLong.empty() : OptionalLong.of(process.pid());
        }
    }

    /**
     * Kills the child, everything below it and the noted groups; {@link #close} has nothing left to do. Never
     * blocks: a thread that ends within seconds kills the groups.
     */
    public void kill() {
        Process started;
        synchronized (lock) {
            if (isClosed) {
                return;
            }
            isClosed = true;
            started = process;
        }
        isStopRequested = true;
        if (started != null) {
            ProcessTree.kill(started);
            daemon("kill", () -> groups.forEach(ProcessTree::killGroup)).start();
        } else if (launcher != null) {
            launcher.interrupt();
        }
        outgoing.add(END_OF_LINES);
    }

    /** Notes a process group below the child; {@link #close} kills it. */
    public void addGroup(long group) {
        groups.add(group);
    }

    /** Notes that a process group has ended, so that its number is not killed later. */
    public void removeGroup(long group) {
        groups.remove(group);
    }

    /**
     * Ends the child: stop line, grace, TERM, KILL of it, its descendants and the noted groups.
     * Idempotent. Blocks at most about 5 s over {@code stopGrace}; an interrupt shortens the waits.
     */
    @Override
    public void close() {
        Process started;
        synchronized (lock) {
            if (isClosed) {
                return;
            }
            isClosed = true;
            started = process;
        }
        requestStop("the operator was closed");
        if (started != null) {
            ProcessTree.end(started, stopGrace.plus(CLOSE_MARGIN), groups);
        } else if (launcher != null) {
            launcher.interrupt();
        }
        outgoing.add(END_OF_LINES);
    }

    private void runChild() {
        Process started;
        try {
            ProcessBuilder builder = command.call();
            synchronized (lock) {
                if (isClosed) {
                    return;
                }
                started = builder.start();
                process = started;
            }
            LOG.info("[{}] started as process {}", label, started.pid());
            daemon("stderr", () -> readStderr(started.getErrorStream())).start();
            daemon("stdin", () -> writeStdin(started)).start();
        } catch (Throwable e) { // an Error, too, such as a lack of threads: nobody else would tell
            onFailedStart(e);
            return;
        }
        started.onExit().thenRunAsync(() -> reportExit(started), this::runAtExit);
        readStdout(started.getInputStream());
    }

    /** A child that was started and that nobody can serve is killed; it has not been told yet what to do. */
    private void onFailedStart(Throwable cause) {
        Process unserved;
        synchronized (lock) {
            unserved = process;
            if (isClosed && unserved == null) {
                return;
            }
        }
        if (unserved != null) {
            unserved.destroyForcibly();
        }
        outgoing.add(END_OF_LINES);
        listener.onExit(new ChildExit(OptionalInt.empty(), List.of(), cause));
    }

    /** Where there is no thread for it, the one that has seen the end does it. */
    private void runAtExit(Runnable report) {
        try {
            daemon("exit", report).start();
        } catch (OutOfMemoryError e) {
            report.run();
        }
    }

    private void readStdout(InputStream stdout) {
        try (BufferedReader reader = reader(stdout)) {
            for (String text = reader.readLine(); text != null; text = reader.readLine()) {
                ObjectNode line;
                try {
                    line = Lines.parse(text);
                } catch (IllegalArgumentException e) {
                    LOG.warn("[{}] not a protocol line on stdout: {}", label, text);
                    continue;
                }
                listener.onLine(line);
            }
        } catch (IOException e) {
            LOG.debug("[{}] stdout closed", label, e);
        } finally {
            stdoutDone.countDown();
        }
    }

    private void readStderr(InputStream stderr) {
        try (BufferedReader reader = reader(stderr)) {
            for (String text = reader.readLine(); text != null; text = reader.readLine()) {
                LOG.info("[{}] {}", label, text);
                synchronized (lastLines) {
                    if (lastLines.size() == LAST_LINES) {
                        lastLines.removeFirst();
                    }
                    lastLines.addLast(text);
                }
            }
        } catch (IOException e) {
            LOG.debug("[{}] stderr closed", label, e);
        } finally {
            stderrDone.countDown();
        }
    }

    private void writeStdin(Process started) {
        try (Writer writer = started.outputWriter(StandardCharsets.UTF_8)) {
            for (String text = outgoing.take(); !text.equals(END_OF_LINES); text = outgoing.take()) {
                writer.write(text);
                writer.write('\n');
                writer.flush();
            }
        } catch (IOException e) {
            LOG.debug("[{}] stdin closed", label, e);
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
        }
    }

    /** The child's own children may keep its pipes open, so the last lines get a bounded wait. */
    private void reportExit(Process ended) {
        try {
            stdoutDone.await(DRAIN_MS, TimeUnit.MILLISECONDS);
            stderrDone.await(DRAIN_MS, TimeUnit.MILLISECONDS);
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
        }
        outgoing.add(END_OF_LINES);
        LOG.info("[{}] process {} ended with exit code {}", label, ended.pid(), ended.exitValue());
        List<String> lines;
        synchronized (lastLines) {
            lines = List.copyOf(lastLines);
        }
        listener.onExit(new ChildExit(OptionalInt.of(ended.exitValue()), lines, null));
    }

    private Thread daemon(String what, Runnable run) {
        Thread thread = threads.newThread(run);
        thread.setName(threadName + " " + what);
        thread.setDaemon(true);
        return thread;
    }

    private static BufferedReader reader(InputStream stream) {
        return new BufferedReader(new InputStreamReader(stream, StandardCharsets.UTF_8));
    }
}
