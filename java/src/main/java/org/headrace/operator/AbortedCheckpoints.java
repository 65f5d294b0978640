package org.headrace.operator;

import java.util.TreeSet;

/**
 * Ids of checkpoints that were aborted, the latest ones: Flink tells of each, and of none that nobody will
 * ask for it again.
 *
 * <p>Thread model: one thread.
 */
final class AbortedCheckpoints {

    /** As many as Flink's own tasks remember; at most a few are under way at the same time. */
    static final int MOST = 128;

    private final TreeSet<Long> ids = new TreeSet<>();

    void add(long checkpointId) {
        ids.add(checkpointId);
        if (ids.size() > MOST) {
            ids.pollFirst();
        }
    }

    boolean contains(long checkpointId) {
        return ids.contains(checkpointId);
    }

    /** Forgets one; says whether it was there. */
    boolean remove(long checkpointId) {
        return ids.remove(checkpointId);
    }

    /** Forgets those that are older than a checkpoint. */
    void forgetBefore(long checkpointId) {
        ids.headSet(checkpointId).clear();
    }

    int size() {
        return ids.size();
    }
}
