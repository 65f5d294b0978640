package org.headrace.operator;

import org.apache.flink.runtime.checkpoint.CheckpointOptions;
import org.apache.flink.runtime.state.CheckpointStreamFactory;
import org.apache.flink.runtime.state.StateInitializationContext;
import org.apache.flink.streaming.api.operators.AbstractStreamOperator;
import org.apache.flink.streaming.api.operators.BoundedOneInput;
import org.apache.flink.streaming.api.operators.OneInputStreamOperator;
import org.apache.flink.streaming.api.operators.OperatorSnapshotFutures;
import org.apache.flink.streaming.api.operators.StreamOperatorParameters;
import org.apache.flink.streaming.api.watermark.Watermark;
import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;
import org.apache.flink.streaming.runtime.watermarkstatus.WatermarkStatus;
import org.apache.flink.table.data.RowData;

import org.headrace.plan.ClusterPlan;
import org.headrace.plan.RolePlan;

/**
 * A role whose subtasks do not know each other: no master, no control stream, chained to its input.
 * A failure of its process fails the task. Task thread only; see {@link RoleCore}.
 */
final class ChainedRoleOperator extends AbstractStreamOperator<RowData>
        implements OneInputStreamOperator<RowData, RowData>, BoundedOneInput {

    private static final long serialVersionUID = 1L;

    private final transient RoleCore core;

    ChainedRoleOperator(StreamOperatorParameters<RowData> parameters, ClusterPlan cluster, RolePlan role) {
        super(parameters);
        core = new RoleCore(cluster, role, parameters);
    }

    @Override
    public void initializeState(StateInitializationContext context) throws Exception {
        super.initializeState(context);
        core.restore(context);
    }

    @Override
    public void open() throws Exception {
        super.open();
        core.open(getRuntimeContext(), false);
    }

    @Override
    public void processElement(StreamRecord<RowData> element) throws Exception {
        core.write(element.getValue(), element.hasTimestamp(), element.hasTimestamp() ? element.getTimestamp() : 0);
    }

    @Override
    public void processWatermark(Watermark mark) {
        core.onWatermark(mark.getTimestamp());
    }

    @Override
    public void processWatermarkStatus(WatermarkStatus status) {
        core.onWatermarkStatus(status);
    }

    /** Waits for the process to handle its last rows; no checkpoint is taken meanwhile. */
    @Override
    public void endInput() throws Exception {
        core.onInputEnd();
        core.awaitOutputEnd();
    }

    @Override
    public void prepareSnapshotPreBarrier(long checkpointId) throws Exception {
        core.onBarrier(checkpointId);
    }

    @Override
    public OperatorSnapshotFutures snapshotState(
            long checkpointId, long timestamp, CheckpointOptions options, CheckpointStreamFactory factory)
            throws Exception {
        OperatorSnapshotFutures futures = super.snapshotState(checkpointId, timestamp, options, factory);
        core.snapshotState(checkpointId, factory, futures);
        return futures;
    }

    @Override
    public void notifyCheckpointComplete(long checkpointId) throws Exception {
        super.notifyCheckpointComplete(checkpointId);
        core.onCheckpointComplete(checkpointId);
    }

    @Override
    public void notifyCheckpointAborted(long checkpointId) throws Exception {
        super.notifyCheckpointAborted(checkpointId);
        core.onCheckpointAborted(checkpointId);
    }

    @Override
    public void finish() throws Exception {
        core.finish();
        super.finish();
    }

    @Override
    public void close() throws Exception {
        try {
            core.close();
        } finally {
            super.close();
        }
    }
}
