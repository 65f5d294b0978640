package org.headrace.process;

import org.apache.flink.annotation.Internal;
import org.apache.flink.api.common.JobID;
import org.apache.flink.api.common.functions.RuntimeContext;

import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

import java.time.Duration;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Callable;

/**
 * The spare node processes of one job on one TaskManager. They outlive the attempts of the job's tasks, so no
 * task owns them: Flink's release of the job's class loader ends those that are left.
 *
 * <p>Thread model: any thread; nothing blocks but for short file operations in {@link #make}. What a spare
 * says and its end come on its own threads.
 */
@Internal
public final class SpareNodes {

    private static final Logger LOG = LoggerFactory.getLogger(SpareNodes.class);
    private static final String HOOK = "headrace-spare-nodes";
    private static final int MAX_FAILURES = 3;

    private static final Map<Key, SpareNodes> ALL = new HashMap<>(); // guarded by itself

    /** The class loader is released when the job has gone; another time it comes with another one. */
    private record Key(JobID job, ClassLoader loader) {}

    /** What there is for one role. */
    private static final class OfRole {

        private final Deque<SpareNode> waiting = new ArrayDeque<>();
        private int running; // subtasks of the role that run here
        private int most; // subtasks that may come to run here
        private int failures; // in a row, of spares that never were ready
        private long notBefore = System.nanoTime();

        /** One for each subtask, and one for a subtask that may come. */
        int wanted() {
            return running < most ? running + 1 : running;
        }

        /** The one for a subtask that may come is made when those for the others are ready. */
        boolean hasEnough() {
            return waiting.size() >= wanted()
                    || waiting.size() >= running && !waiting.stream().allMatch(SpareNode::isReady);
        }
    }

    private final Key key;
    private final Map<String, OfRole> roles = new HashMap<>(); // guarded by this
    private boolean isClosed; // guarded by this

    private SpareNodes(Key key) {
        this.key = key;
    }

    /** The spares of the job that the task belongs to. */
    public static SpareNodes of(JobID job, RuntimeContext context) {
        Key key = new Key(job, context.getUserCodeClassLoader());
        SpareNodes found;
        synchronized (ALL) {
            found = ALL.computeIfAbsent(key, SpareNodes::new);
        }
        context.registerUserCodeClassLoaderReleaseHookIfAbsent(HOOK, found::close);
        return found;
    }

    /** A subtask of the role begins here. */
    public synchronized void enter(String role) {
        ofRole(role).running++;
    }

    /**
     * A subtask of the role has ended here.
     *
     * @param isFinished whether it comes back in no attempt; a spare of too many is ended
     */
    public synchronized void leave(String role, boolean isFinished) {
        OfRole here = ofRole(role);
        here.running--;
        if (isFinished) {
            endTooMany(here);
        }
    }

    private static void endTooMany(OfRole here) {
        while (here.waiting.size() > here.wanted()) {
            here.waiting.removeLast().end();
        }
    }

    /**
     * A spare of the role, which the caller owns from now on; null if there is none. One that was stopped, or
     * has ended, is none.
     *
     * @param task what the node is to be told of its subtask
     */
    public synchronized SpareNode take(String role, TaskFacts task) {
        OfRole here = ofRole(role);
        for (SpareNode each : List.copyOf(here.waiting)) {
            if (!each.hasSpoken()) {
                continue; // it only begins: another node begins as soon
            }
            here.waiting.remove(each);
            if (each.isAwake()) {
                each.home().moveTo(task);
                return each;
            }
            LOG.warn("[{} spare] does not run; a node is started instead", role);
            each.end();
        }
        return null;
    }

    /**
     * Makes a spare, unless there are enough, or the last one has only just died: one for each subtask that runs
     * here, and one more while fewer run here than may.
     *
     * @param most how many subtasks of the role may come to run here
     * @param module Python module of the node
     * @param home makes its home
     * @param pause until another one is made after one that has died
     */
    public synchronized void make(
            String role, int most, String module, Callable<ChildHome> home, Duration pause)
            throws Exception {
        OfRole here = ofRole(role);
        here.most = most;
        endTooMany(here); // an attempt has fewer subtasks than the one before
        boolean isTooSoon = System.nanoTime() - here.notBefore < 0;
        if (isClosed || here.hasEnough() || isTooSoon || here.failures >= MAX_FAILURES) {
            return;
        }
        SpareNode[] spare = new SpareNode[1];
        spare[0] = new SpareNode(role, module, home.call(), () -> onEnd(role, spare, pause));
        here.waiting.add(spare[0]);
    }

    /** A spare that nobody has taken has died. */
    private synchronized void onEnd(String role, SpareNode[] spare, Duration pause) {
        OfRole here = ofRole(role);
        if (!here.waiting.remove(spare[0])) {
            return; // taken, or being ended
        }
        here.notBefore = System.nanoTime() + pause.toNanos();
        here.failures = spare[0].isReady() ? 0 : here.failures + 1;
        if (here.failures == MAX_FAILURES) {
            LOG.warn("[{} spare] {} in a row could not be made ready; no more are started", role, MAX_FAILURES);
        }
        spare[0].end();
    }

    /** The job has gone: ends every spare, on threads of their own. */
    private void close() {
        synchronized (ALL) {
            ALL.remove(key, this);
        }
        List<SpareNode> left = new ArrayList<>();
        synchronized (this) {
            isClosed = true;
            roles.values().forEach(each -> left.addAll(each.waiting));
            roles.clear();
        }
        left.forEach(SpareNode::end);
    }

    private OfRole ofRole(String role) {
        return roles.computeIfAbsent(role, name -> new OfRole());
    }
}
