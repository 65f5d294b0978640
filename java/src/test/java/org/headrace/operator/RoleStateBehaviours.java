package org.headrace.operator;

import static org.headrace.exchange.Behaviours.check;
import static org.headrace.exchange.Behaviours.checkEqual;
import static org.headrace.exchange.Behaviours.checkThrows;

import org.apache.flink.api.common.TaskInfo;
import org.apache.flink.api.common.TaskInfoImpl;
import org.apache.flink.core.fs.CloseableRegistry;
import org.apache.flink.core.fs.FSDataInputStream;
import org.apache.flink.runtime.checkpoint.CheckpointException;
import org.apache.flink.runtime.checkpoint.CheckpointFailureReason;
import org.apache.flink.runtime.state.OperatorStateHandle;
import org.apache.flink.runtime.state.SnapshotResult;
import org.apache.flink.runtime.state.memory.MemCheckpointStreamFactory;

import org.headrace.exchange.StateFile;
import org.headrace.exchange.TestMailbox;
import org.headrace.process.MailboxWait;
import org.headrace.process.PythonProcessException;

import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CancellationException;
import java.util.concurrent.RunnableFuture;

/** What a checkpoint holds of a process, who has its files open and until when. */
public final class RoleStateBehaviours {

    private static final TaskInfo TASK = new TaskInfoImpl("worker", 128, 1, 3, 0);
    private static final boolean UNTOUCHED = true;
    private static final boolean HAD_ROWS = false;
    private static final int ROOM_BYTES = 1 << 20;

    private RoleStateBehaviours() {}

    public static void aProcessWithoutRowsIsWrittenAsOne() throws Exception {
        try (Scene scene = Scene.fresh()) {
            checkEqual(scene.written(1, UNTOUCHED), List.of("1 of 3: nothing"));
            check(!scene.state.hasRestored(), "it goes on from a state");
        }
    }

    public static void oneThatHasHadRowsAndKeepsNothingHasNoPart() throws Exception {
        try (Scene scene = Scene.fresh()) {
            check(scene.begin(1, HAD_ROWS) == null, "there is a part");
        }
    }

    public static void oneRestoredWithoutAStateWritesWhatItWasRestoredWith() throws Exception {
        try (Scene scene = Scene.restored(List.of())) { // trained on without a state, before
            check(scene.begin(1, UNTOUCHED) == null, "there is a part");
            check(!scene.state.hasRestored(), "it goes on from a state");
        }
        try (Scene scene = Scene.restored(List.of(new StatePart("worker", 1, 3, null)))) {
            checkEqual(scene.written(1, UNTOUCHED), List.of("1 of 3: nothing"));
            check(!scene.state.hasRestored(), "it goes on from a state");
        }
    }

    public static void twoRestoresInARowHandOnEveryState() throws Exception {
        List<StatePart> parts = List.of(part(0, 2, "first"), part(1, 2, "second"));
        List<String> expected = List.of("0 of 2: first", "1 of 2: second");
        for (int restore = 0; restore < 3; restore++) {
            try (Scene scene = Scene.restored(parts)) {
                check(scene.state.hasRestored(), "it goes on from no state");
                checkEqual(texts(scene.state.restored()), expected);
                checkEqual(scene.written(1, UNTOUCHED), expected);
                checkEqual(scene.written(2, UNTOUCHED), expected); // the files stay open for the next
                parts = scene.read(scene.run(scene.begin(3, UNTOUCHED)));
            }
        }
        parts.forEach(part -> part.file().close());
    }

    public static void aRestoredProcessIsAskedAtEveryBarrierAlsoWhenItHasAnswered() throws Exception {
        StatePart restored = part(1, 3, "before");
        try (Scene scene = Scene.restored(List.of(restored))) {
            check(scene.state.hasRestored(), "it is not asked");
            scene.state.onHandled(1, file("after"));
            checkClosed(restored.file()); // the process has read it
            check(scene.state.hasRestored(), "it is not asked again");
            checkEqual(scene.written(1, UNTOUCHED), List.of("1 of 3: after"));
        }
    }

    public static void anAbortDropsTheStateOfThatCheckpointOnly() throws Exception {
        try (Scene scene = Scene.fresh()) {
            StateFile ninth = file("ninth");
            scene.state.onHandled(9, ninth);
            scene.state.onCheckpointAborted(8);
            scene.state.onCheckpointAborted(10);
            checkEqual(scene.givenBack, List.of());
            scene.state.onCheckpointAborted(9);
            checkEqual(scene.givenBack, List.of(ninth));
            checkClosed(ninth);
            check(scene.begin(9, HAD_ROWS) == null, "it is written");
        }
    }

    public static void anAbortThatComesBeforeTheAnswerDropsIt() throws Exception {
        try (Scene scene = Scene.fresh()) {
            StateFile eighth = file("eighth");
            scene.state.onCheckpointAborted(8);
            scene.state.onHandled(8, eighth);
            checkEqual(scene.givenBack, List.of(eighth));
            scene.state.onHandled(9, file("ninth"));
            scene.state.onCheckpointAborted(8); // told twice
            checkEqual(scene.written(9, HAD_ROWS), List.of("1 of 3: ninth"));
        }
    }

    public static void theStateOfOneAbortedLongAgoIsDroppedWithTheNext() throws Exception {
        try (Scene scene = Scene.fresh()) {
            StateFile first = file("first");
            for (long id = 1; id <= 2 * AbortedCheckpoints.MOST; id++) {
                scene.state.onCheckpointAborted(id); // the process answers none of them meanwhile
            }
            scene.state.onHandled(1, first);
            long next = 2 * AbortedCheckpoints.MOST + 1;
            scene.state.onHandled(next, file("next"));
            checkEqual(scene.givenBack, List.of(first));
            checkEqual(scene.written(next, HAD_ROWS), List.of("1 of 3: next"));
        }
    }

    public static void aFileIsGivenBackWhenItsCheckpointIsWritten() throws Exception {
        try (Scene scene = Scene.fresh()) {
            StateFile first = file("first");
            StateFile second = file("second");
            scene.state.onHandled(1, first);
            RunnableFuture<SnapshotResult<OperatorStateHandle>> writing = scene.begin(1, HAD_ROWS);
            scene.state.onHandled(2, second); // while the first is being written
            scene.state.onCheckpointAborted(1);
            checkEqual(scene.givenBack, List.of());
            checkEqual(texts(scene.read(scene.run(writing))), List.of("1 of 3: first"));
            checkEqual(scene.givenBack, List.of(first));
            checkClosed(first);
            checkEqual(scene.written(2, HAD_ROWS), List.of("1 of 3: second"));
            checkEqual(scene.givenBack, List.of(first, second));
        }
    }

    public static void aCancelledCheckpointGivesItsFileBack() throws Exception {
        try (Scene scene = Scene.fresh()) {
            StateFile file = file("state");
            scene.state.onHandled(1, file);
            RunnableFuture<SnapshotResult<OperatorStateHandle>> writing = scene.begin(1, HAD_ROWS);
            writing.cancel(true);
            scene.mailbox.yieldUntil(() -> !scene.givenBack.isEmpty());
            checkEqual(scene.givenBack, List.of(file));
            checkClosed(file);
        }
        try (Scene scene = Scene.fresh()) {
            StateFile file = file("state");
            scene.state.onHandled(1, file);
            RunnableFuture<SnapshotResult<OperatorStateHandle>> writing = scene.begin(1, HAD_ROWS);
            scene.registry.close(); // as where the task is cancelled
            writing.run();
            checkThrows(CancellationException.class, writing::get);
            scene.mailbox.yieldUntil(() -> !scene.givenBack.isEmpty());
            checkClosed(file);
        }
    }

    public static void aCheckpointThatCannotBeWrittenGivesItsFileBack() throws Exception {
        try (Scene scene = Scene.fresh()) {
            StateFile file = file("state");
            scene.state.onHandled(1, file);
            RunnableFuture<SnapshotResult<OperatorStateHandle>> writing =
                    scene.state.snapshot(1, HAD_ROWS, new MemCheckpointStreamFactory(3), scene.registry);
            writing.run();
            checkThrows(IOException.class, writing::get, "larger than the maximum");
            scene.mailbox.yieldUntil(() -> !scene.givenBack.isEmpty());
            checkEqual(scene.givenBack, List.of(file));
            checkClosed(file);
        }
    }

    public static void aDeclinedCheckpointIsNotWrittenAndFailsWithItsReason() throws Exception {
        CheckpointException slow = new CheckpointException("slow", CheckpointFailureReason.CHECKPOINT_DECLINED);
        try (Scene scene = Scene.fresh()) {
            scene.state.onHandled(RoleState.EVERY_CHECKPOINT, file("last"));
            scene.state.onCheckpointDeclined(2, slow);
            checkEqual(scene.written(1, HAD_ROWS), List.of("1 of 3: last"));
            RunnableFuture<SnapshotResult<OperatorStateHandle>> declined = scene.begin(2, HAD_ROWS);
            declined.run();
            check(checkThrows(CheckpointException.class, declined::get) == slow, "another cause");
            scene.begin(2, HAD_ROWS).cancel(true);
            checkEqual(scene.written(3, HAD_ROWS), List.of("1 of 3: last"));
        }
    }

    public static void theLastStateIsThatOfEveryLaterCheckpoint() throws Exception {
        try (Scene scene = Scene.fresh()) {
            StateFile last = file("last");
            scene.state.onHandled(1, file("first"));
            scene.state.onHandled(RoleState.EVERY_CHECKPOINT, file("end of the input"));
            scene.state.onHandled(RoleState.EVERY_CHECKPOINT, last);
            checkEqual(scene.written(1, HAD_ROWS), List.of("1 of 3: first"));
            scene.givenBack.clear();
            scene.state.onProcessEnd();
            checkEqual(scene.givenBack, List.of(last)); // the process may end
            checkEqual(scene.written(2, HAD_ROWS), List.of("1 of 3: last"));
            scene.state.onCheckpointAborted(3);
            checkEqual(scene.written(4, HAD_ROWS), List.of("1 of 3: last"));
            checkEqual(scene.givenBack, List.of(last));
            scene.state.close();
            checkClosed(last);
        }
    }

    public static void aStateThatTheJobManagerDoesNotTakeIsAnErrorWithTheSetting() throws Exception {
        try (Scene scene = Scene.fresh()) {
            scene.state.onHandled(1, file("x".repeat(5 << 20)));
            PythonProcessException failure =
                    checkThrows(
                            PythonProcessException.class,
                            () -> scene.begin(1, HAD_ROWS),
                            "worker-1",
                            String.valueOf(5 << 20),
                            "execution.checkpointing.dir");
            check(failure != null, "no failure");
        }
    }

    /** A state, its mailbox, and the files that the process got back. */
    private static final class Scene implements AutoCloseable {

        final TestMailbox mailbox = new TestMailbox();
        final CloseableRegistry registry = new CloseableRegistry();
        final List<StateFile> givenBack = new ArrayList<>();
        final RoleState state;

        private Scene(boolean isRestored, List<StatePart> parts) {
            state = new RoleState("worker", TASK, new MailboxWait(mailbox), isRestored, parts);
            state.bind(givenBack::add);
        }

        static Scene fresh() {
            return new Scene(false, List.of());
        }

        static Scene restored(List<StatePart> parts) {
            return new Scene(true, parts);
        }

        RunnableFuture<SnapshotResult<OperatorStateHandle>> begin(long checkpointId, boolean isUntouched)
                throws Exception {
            return state.snapshot(checkpointId, isUntouched, new MemCheckpointStreamFactory(ROOM_BYTES), registry);
        }

        OperatorStateHandle run(RunnableFuture<SnapshotResult<OperatorStateHandle>> writing) throws Exception {
            writing.run();
            OperatorStateHandle handle = writing.get().getJobManagerOwnedSnapshot();
            mailbox.yield(); // the word that it is written
            return handle;
        }

        List<String> written(long checkpointId, boolean isUntouched) throws Exception {
            List<StatePart> parts = read(run(begin(checkpointId, isUntouched)));
            List<String> texts = texts(parts);
            parts.stream().filter(part -> part.file() != null).forEach(part -> part.file().close());
            return texts;
        }

        /** The partitions, as a subtask that is restored with all of them reads them. */
        List<StatePart> read(OperatorStateHandle handle) throws IOException {
            List<StatePart> parts = new ArrayList<>();
            try (FSDataInputStream stream = handle.openInputStream()) {
                for (OperatorStateHandle.StateMetaInfo meta : handle.getStateNameToPartitionOffsets().values()) {
                    checkEqual(meta.getDistributionMode(), OperatorStateHandle.Mode.SPLIT_DISTRIBUTE);
                    for (long offset : meta.getOffsets()) {
                        stream.seek(offset);
                        parts.add(inTempDirectory(directories -> StatePart.readFrom(stream, directories)));
                    }
                }
            }
            return parts;
        }

        @Override
        public void close() throws IOException {
            state.close();
            registry.close();
        }
    }

    private interface Read<T> {
        T from(List<Path> directories) throws IOException;
    }

    private static <T> T inTempDirectory(Read<T> read) throws IOException {
        Path directory = Files.createTempDirectory("hr");
        try {
            return read.from(List.of(directory));
        } finally {
            Files.delete(directory);
        }
    }

    private static StateFile file(String content) throws IOException {
        byte[] bytes = content.getBytes(StandardCharsets.UTF_8);
        return inTempDirectory(
                directories -> StateFile.copy(new ByteArrayInputStream(bytes), bytes.length, directories));
    }

    private static StatePart part(int index, int parallelism, String content) throws IOException {
        return new StatePart("worker", index, parallelism, file(content));
    }

    private static List<String> texts(List<StatePart> parts) throws IOException {
        List<String> texts = new ArrayList<>();
        for (StatePart part : parts) {
            String content = part.file() == null ? "nothing" : contentOf(part.file());
            texts.add(String.format("%d of %d: %s", part.index(), part.parallelism(), content));
        }
        return texts;
    }

    private static String contentOf(StateFile file) throws IOException {
        ByteArrayOutputStream content = new ByteArrayOutputStream();
        file.writeTo(content);
        return content.toString(StandardCharsets.UTF_8);
    }

    private static void checkClosed(StateFile file) {
        checkThrows(IOException.class, () -> contentOf(file), "Closed");
    }
}
