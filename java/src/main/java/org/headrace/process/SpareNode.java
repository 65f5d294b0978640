package org.headrace.process;

import org.apache.flink.annotation.Internal;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.node.ObjectNode;

import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

import java.io.IOException;
import java.util.OptionalLong;

/**
 * A node process that waits for its start line, with the home that was made for it: docs/adr/0120.
 *
 * <p>Thread model: the lines of the node come on threads of its own, everything else is called by
 * {@link SpareNodes} under its lock, or by the one operator that has taken it.
 */
@Internal
public final class SpareNode implements ChildProcess.Listener {

    private static final Logger LOG = LoggerFactory.getLogger(SpareNode.class);

    private final String role;
    private final Runnable onEnd;
    private final ChildHome home;
    private final ChildProcess child;

    private final Object lock = new Object();
    private ChildProcess.Listener successor; // guarded by lock; null until it was taken
    private ChildExit exit; // guarded by lock; null while it runs
    private volatile boolean hasSpoken;
    private volatile boolean isReady;

    /**
     * Starts the process in the background.
     *
     * @param home made for this node; closed by whoever has the spare last
     * @param onEnd called on a thread of the node when it, or its algorithm process, has ended untaken
     */
    SpareNode(String role, String module, ChildHome home, Runnable onEnd) {
        this.role = role;
        this.onEnd = onEnd;
        this.home = home;
        child = home.startAhead(module, this);
    }

    /** The home; the caller, who has taken the spare, closes it. */
    public ChildHome home() {
        return home;
    }

    public ChildProcess child() {
        return child;
    }

    /** Whether its algorithm process has ever waited for its line. */
    boolean isReady() {
        return isReady;
    }

    /** Whether it has come so far as to answer at once. */
    boolean hasSpoken() {
        return hasSpoken;
    }

    /** Whether its process is one that answers: it runs, and nobody has stopped it. */
    boolean isAwake() {
        OptionalLong pid = child.pid();
        synchronized (lock) {
            return exit == null && pid.isPresent() && !ProcessTree.isFrozen(pid.getAsLong());
        }
    }

    /**
     * Makes it the node of a subtask: the start line goes out, and the listener is told of everything from
     * now on.
     *
     * @return false if the process has ended
     */
    public boolean begin(ObjectNode startLine, ChildProcess.Listener listener) throws IOException {
        synchronized (lock) {
            if (exit != null) {
                return false;
            }
            successor = listener;
        }
        home.begin(startLine);
        return true;
    }

    @Override
    public void onLine(ObjectNode line) {
        ChildProcess.Listener next = successor();
        if (next != null) {
            next.onLine(line);
            return;
        }
        hasSpoken = true;
        long pid = line.path("pid").longValue();
        switch (line.path("state").asText()) {
            case "loading":
                child.addGroup(pid);
                break;
            case "ready":
                isReady = true;
                LOG.info("[{} spare] process {} is ready", role, pid);
                break;
            case "ended":
                child.removeGroup(pid);
                LOG.info("[{} spare] process {} has ended", role, pid == 0 ? "that could not be started" : pid);
                onEnd.run();
                break;
            default:
                LOG.warn("[{} spare] an unexpected line: {}", role, line.path("message").asText());
        }
    }

    @Override
    public void onExit(ChildExit ended) {
        ChildProcess.Listener next;
        synchronized (lock) {
            exit = ended;
            next = successor;
        }
        if (next != null) {
            next.onExit(ended);
        } else if (!child.isStopRequested()) {
            LOG.info("{}", ended.describe("The node process of a spare " + role));
            onEnd.run();
        }
    }

    private ChildProcess.Listener successor() {
        synchronized (lock) {
            return successor;
        }
    }

    /** Ends it on a thread of its own, so that nobody waits. */
    void end() {
        Thread thread = new Thread(home::close, "headrace " + role + " spare end");
        thread.setDaemon(true);
        thread.start();
    }
}
