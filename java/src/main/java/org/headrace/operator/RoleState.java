package org.headrace.operator;

import org.apache.flink.api.common.TaskInfo;
import org.apache.flink.core.fs.CloseableRegistry;
import org.apache.flink.runtime.checkpoint.CheckpointException;
import org.apache.flink.runtime.execution.Environment;
import org.apache.flink.runtime.state.CheckpointStreamFactory;
import org.apache.flink.runtime.state.OperatorStateHandle;
import org.apache.flink.runtime.state.SnapshotResult;
import org.apache.flink.runtime.state.StatePartitionStreamProvider;
import org.apache.flink.runtime.state.memory.MemCheckpointStreamFactory;
import org.apache.flink.runtime.state.storage.JobManagerCheckpointStorage;

import org.headrace.exchange.StateFile;
import org.headrace.process.MailboxWait;
import org.headrace.process.PythonProcessException;

import java.io.IOException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.FutureTask;
import java.util.concurrent.RunnableFuture;
import java.util.function.Consumer;

/**
 * The state of the process of one role subtask on its way into Flink's checkpoints, and out of them.
 *
 * <p>A file stays open here as long as a checkpoint is being written from it, or one may be. Then it is
 * closed and given back, and the process may write over it.
 *
 * <p>Thread model: task thread only. The writing of a checkpoint runs beside it and comes back by a mail;
 * once the mailbox takes no more, {@link #close} closes what is left.
 */
final class RoleState implements AutoCloseable {

    /** The id with which a process acknowledges every later barrier; docs/exchange.md section 3. */
    static final long EVERY_CHECKPOINT = Long.MAX_VALUE;

    private static final long NO_CHECKPOINT = Long.MIN_VALUE;
    private static final long MAX_HEADER_BYTES = 1 << 10;

    private final String role;
    private final int index;
    private final int parallelism;
    private final MailboxWait wait;
    private final List<StatePart> restored;
    private final boolean isRestored;
    private final boolean hasRestored;
    private final Map<StateFile, Integer> uses = new HashMap<>();

    private Consumer<StateFile> giveBack = file -> {};
    private StateFile latest; // null: none
    private long latestCheckpoint = NO_CHECKPOINT;
    private long declinedCheckpoint = NO_CHECKPOINT; // the latest one
    private CheckpointException whyDeclined;
    private StateFile last; // of every later checkpoint; null: the process goes on, or keeps no state
    private final AbortedCheckpoints aborted = new AbortedCheckpoints(); // not acknowledged, perhaps never

    /**
     * The state of a process that is about to start.
     *
     * @param isRestored whether its input starts behind a checkpoint
     * @param restored what that checkpoint holds for it
     */
    RoleState(String role, TaskInfo task, MailboxWait wait, boolean isRestored, List<StatePart> restored) {
        this.role = role;
        this.wait = wait;
        this.isRestored = isRestored;
        this.restored = new ArrayList<>(restored);
        hasRestored = restored.stream().anyMatch(part -> part.file() != null);
        index = task.getIndexOfThisSubtask();
        parallelism = task.getNumberOfParallelSubtasks();
        restored.stream().filter(part -> part.file() != null).forEach(part -> retain(part.file()));
    }

    /** Copies what a checkpoint holds for this subtask to files. Blocks for as long as that takes. */
    static RoleState restore(
            String role,
            Environment environment,
            MailboxWait wait,
            boolean isRestored,
            Iterable<StatePartitionStreamProvider> states)
            throws Exception {
        List<Path> directories =
                Arrays.stream(environment.getTaskManagerInfo().getTmpDirectories()).map(Path::of).toList();
        List<StatePart> restored = new ArrayList<>();
        try {
            for (StatePartitionStreamProvider state : states) {
                restored.add(StatePart.readFrom(state.getStream(), directories));
            }
        } catch (IOException | RuntimeException e) {
            restored.stream().filter(part -> part.file() != null).forEach(part -> part.file().close());
            throw e;
        }
        return new RoleState(role, environment.getTaskInfo(), wait, isRestored, restored);
    }

    /** Whether the process goes on from a state, and so may do something before it has had a row. */
    boolean hasRestored() {
        return hasRestored;
    }

    /** What the process is to go on with; several, if the role had another parallelism. */
    List<StatePart> restored() {
        return List.copyOf(restored);
    }

    /** Says how the process gets its files back. */
    void bind(Consumer<StateFile> giveBack) {
        this.giveBack = giveBack;
    }

    /** The process has handled all before a barrier, and was then in this state. */
    void onHandled(long checkpointId, StateFile state) {
        releaseRestored(); // the process has read it, as this one shows
        retain(state);
        if (checkpointId == EVERY_CHECKPOINT) {
            StateFile before = last;
            last = state;
            release(before);
        } else if (aborted.remove(checkpointId)) {
            release(state);
        } else {
            aborted.forgetBefore(checkpointId);
            StateFile before = latest;
            latest = state;
            latestCheckpoint = checkpointId;
            release(before);
        }
    }

    /** The process has said END: it waits only to know that its last state is open here. */
    void onProcessEnd() {
        if (last != null) {
            giveBack.accept(last);
        }
        giveBack = file -> {};
    }

    void onCheckpointAborted(long checkpointId) {
        if (latestCheckpoint == checkpointId) {
            releaseLatest();
        } else if (latestCheckpoint < checkpointId) {
            aborted.add(checkpointId);
        }
    }

    /**
     * A checkpoint must not complete, as the process has not handled all before its barrier. That Flink is told
     * so is not enough: its JobManager may take the acknowledgement of the task, which follows, first.
     */
    void onCheckpointDeclined(long checkpointId, CheckpointException cause) {
        declinedCheckpoint = checkpointId;
        whyDeclined = cause;
    }

    /**
     * What writes the state into a checkpoint, beside the task. For one that is declined it fails, with the cause
     * that {@link #onCheckpointDeclined} was told: Flink's {@code AsyncCheckpointRunnable} does not acknowledge then,
     * and declines with the reason of that cause, which counts once for each checkpoint.
     *
     * @param isUntouched whether no row has been handed to the process: then it is as it was started
     * @return null if the process keeps no state
     * @throws Exception if the state is larger than what Flink's JobManager takes; no restart mends that
     */
    RunnableFuture<SnapshotResult<OperatorStateHandle>> snapshot(
            long checkpointId, boolean isUntouched, CheckpointStreamFactory factory, CloseableRegistry registry)
            throws Exception {
        if (declinedCheckpoint == checkpointId) {
            CheckpointException cause = whyDeclined;
            return new FutureTask<>(
                    () -> {
                        throw cause;
                    });
        }
        List<StatePart> parts = parts(checkpointId, isUntouched);
        if (parts.isEmpty()) {
            return null;
        }
        requireRoom(parts, factory);
        List<StateFile> files = parts.stream().map(StatePart::file).filter(file -> file != null).toList();
        files.forEach(this::retain);
        releaseLatest();
        StateWriter writer =
                new StateWriter(
                        parts, factory, () -> wait.post(() -> files.forEach(this::release), "headrace state written"));
        return writer.toAsyncSnapshotFutureTask(registry);
    }

    private List<StatePart> parts(long checkpointId, boolean isUntouched) {
        StateFile own = latestCheckpoint == checkpointId ? latest : last;
        if (own != null) {
            return List.of(new StatePart(role, index, parallelism, own));
        }
        if (!isUntouched) {
            return List.of();
        }
        if (isRestored) { // nothing of a process that has had rows and kept no state
            return List.copyOf(restored);
        }
        return List.of(new StatePart(role, index, parallelism, null));
    }

    /** Flink would refuse it as well, but only after it was on the heap, and in a text that gets lost on its way. */
    private void requireRoom(List<StatePart> parts, CheckpointStreamFactory factory) throws Exception {
        long bytes = parts.stream().mapToLong(StatePart::bytes).sum();
        int limit = JobManagerCheckpointStorage.DEFAULT_MAX_STATE_SIZE;
        if (factory instanceof MemCheckpointStreamFactory && bytes + MAX_HEADER_BYTES > limit) {
            throw PythonProcessException.of(
                    String.format(
                            "The state of %s-%d (ctx.checkpointed, ctx.state) has %d bytes, and Flink keeps checkpoints"
                                    + " on the JobManager's heap, which takes %d bytes of each subtask. Set"
                                    + " `execution.checkpointing.dir` to a directory that all hosts reach.",
                            role, index, bytes, limit),
                    false);
        }
    }

    private void releaseLatest() {
        StateFile before = latest;
        latest = null;
        latestCheckpoint = NO_CHECKPOINT;
        release(before);
    }

    private void releaseRestored() {
        restored.forEach(part -> release(part.file()));
        restored.clear();
    }

    private void retain(StateFile file) {
        uses.merge(file, 1, Integer::sum);
    }

    private void release(StateFile file) {
        if (file != null && uses.containsKey(file) && uses.merge(file, -1, Integer::sum) == 0) {
            uses.remove(file);
            file.close();
            giveBack.accept(file);
        }
    }

    /** Closes all files. Idempotent. */
    @Override
    public void close() {
        giveBack = file -> {};
        uses.keySet().forEach(StateFile::close);
        uses.clear();
    }
}
