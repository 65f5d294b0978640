package org.headrace.operator;

import org.apache.flink.runtime.state.AsyncSnapshotCallable;
import org.apache.flink.runtime.state.CheckpointStateOutputStream;
import org.apache.flink.runtime.state.CheckpointStreamFactory;
import org.apache.flink.runtime.state.CheckpointedStateScope;
import org.apache.flink.runtime.state.DefaultOperatorStateBackend;
import org.apache.flink.runtime.state.OperatorStateHandle;
import org.apache.flink.runtime.state.OperatorStreamStateHandle;
import org.apache.flink.runtime.state.SnapshotResult;

import java.io.IOException;
import java.util.List;
import java.util.Map;

/**
 * Writes the states of processes into a checkpoint, as raw operator state: one partition each.
 *
 * <p>Thread model: made on the task thread; Flink runs it on a thread for checkpoints, beside the task.
 * {@code onDone} is called once, on any thread: when all was written, when that failed, or when the
 * checkpoint was cancelled, begun or not.
 *
 * <p>Source: Flink's {@code OperatorStateCheckpointOutputStream} and {@code
 * StateSnapshotContextSynchronousImpl}, which write on the task thread.
 */
final class StateWriter extends AsyncSnapshotCallable<SnapshotResult<OperatorStateHandle>> {

    private final List<StatePart> parts;
    private final CheckpointStreamFactory factory;
    private final Runnable onDone;

    StateWriter(List<StatePart> parts, CheckpointStreamFactory factory, Runnable onDone) {
        this.parts = parts;
        this.factory = factory;
        this.onDone = onDone;
    }

    @Override
    protected SnapshotResult<OperatorStateHandle> callInternal() throws Exception {
        CheckpointStateOutputStream stream =
                factory.createCheckpointStateOutputStream(CheckpointedStateScope.EXCLUSIVE);
        snapshotCloseableRegistry.registerCloseable(stream);
        long[] offsets = new long[parts.size()];
        for (int i = 0; i < offsets.length; i++) {
            offsets[i] = stream.getPos();
            parts.get(i).writeTo(stream);
        }
        if (!snapshotCloseableRegistry.unregisterCloseable(stream)) {
            throw new IOException("The checkpoint was cancelled");
        }
        OperatorStateHandle.StateMetaInfo meta =
                new OperatorStateHandle.StateMetaInfo(offsets, OperatorStateHandle.Mode.SPLIT_DISTRIBUTE);
        return SnapshotResult.of(
                new OperatorStreamStateHandle(
                        Map.of(DefaultOperatorStateBackend.DEFAULT_OPERATOR_STATE_NAME, meta),
                        stream.closeAndGetHandle()));
    }

    @Override
    protected void cleanupProvidedResources() {
        onDone.run();
    }
}
