package org.headrace.process;

import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Set;
import java.util.concurrent.TimeUnit;

/** Ends a process with everything below it. Blocks, each step bounded; an interrupt shortens the waits. */
final class ProcessTree {

    private static final Logger LOG = LoggerFactory.getLogger(ProcessTree.class);
    private static final Duration TERM_WAIT = Duration.ofMillis(500);
    private static final long LOOK_EVERY_MS = 200;
    private static final long KILL_WAIT_MS = 2_000;

    private ProcessTree() {}

    /**
     * Waits for the process to end by itself, then TERM, then KILL of its descendants and groups. A process
     * that is frozen (SIGSTOP) can do nothing by itself: it is killed at once.
     *
     * @param grace how long the process has to end by itself
     * @param groups process groups of its children that have not been reported as ended
     */
    static void end(Process process, Duration grace, Set<Long> groups) {
        Set<ProcessHandle> below = new LinkedHashSet<>();
        boolean interrupted = Thread.interrupted();
        try {
            process.descendants().forEach(below::add);
            if (!endsByItself(process, grace)) {
                process.descendants().forEach(below::add);
                process.destroy();
                endsByItself(process, TERM_WAIT);
            }
        } catch (InterruptedException e) {
            interrupted = true;
        }
        boolean killed = process.isAlive();
        process.descendants().forEach(below::add);
        process.destroyForcibly();
        below.removeIf(each -> !each.isAlive());
        if (killed || !below.isEmpty()) {
            LOG.warn("Killing process {} and {} below it", process.pid(), below.size());
        }
        below.forEach(ProcessHandle::destroyForcibly);
        groups.forEach(ProcessTree::killGroup);
        try {
            process.waitFor(KILL_WAIT_MS, TimeUnit.MILLISECONDS);
        } catch (InterruptedException e) {
            interrupted = true;
        }
        if (interrupted) {
            Thread.currentThread().interrupt();
        }
    }

    /** Kills a process with everything that is below it now. Does not wait. */
    static void kill(Process process) {
        List<ProcessHandle> below = process.descendants().toList();
        process.destroyForcibly();
        below.forEach(ProcessHandle::destroyForcibly);
    }

    /** Waits for the end of a process; gives up at the limit, or once it is frozen. */
    private static boolean endsByItself(Process process, Duration limit) throws InterruptedException {
        long deadline = System.nanoTime() + limit.toNanos();
        while (!isFrozen(process.pid())) {
            long leftMs = TimeUnit.NANOSECONDS.toMillis(deadline - System.nanoTime());
            if (process.waitFor(Math.min(LOOK_EVERY_MS, leftMs), TimeUnit.MILLISECONDS)) {
                return true;
            }
            if (leftMs <= 0) {
                return false;
            }
        }
        return false;
    }

    /** Whether the process is stopped; see proc(5), the field behind the name in parentheses. */
    static boolean isFrozen(long pid) {
        try {
            String stat = Files.readString(Path.of("/proc", String.valueOf(pid), "stat"));
            return stat.startsWith(" T", stat.lastIndexOf(')') + 1);
        } catch (IOException e) {
            return false; // it has ended
        }
    }

    /** Kills a process group; no error if it is gone. */
    static void killGroup(long group) {
        try {
            Process kill =
                    new ProcessBuilder(List.of("kill", "-9", "--", "-" + group))
                            .redirectErrorStream(true)
                            .redirectOutput(ProcessBuilder.Redirect.DISCARD)
                            .start();
            kill.waitFor(1, TimeUnit.SECONDS);
        } catch (IOException e) {
            LOG.warn("Could not kill process group {}", group, e);
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
        }
    }
}
