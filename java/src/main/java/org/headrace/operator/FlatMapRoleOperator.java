package org.headrace.operator;

import org.apache.flink.runtime.checkpoint.CheckpointOptions;
import org.apache.flink.runtime.state.CheckpointStreamFactory;
import org.apache.flink.runtime.state.StateInitializationContext;
import org.apache.flink.streaming.api.operators.AbstractStreamOperator;
import org.apache.flink.streaming.api.operators.BoundedMultiInput;
import org.apache.flink.streaming.api.operators.OperatorSnapshotFutures;
import org.apache.flink.streaming.api.operators.StreamOperatorParameters;
import org.apache.flink.streaming.api.operators.TwoInputStreamOperator;
import org.apache.flink.streaming.api.watermark.Watermark;
import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;
import org.apache.flink.streaming.runtime.watermarkstatus.WatermarkStatus;
import org.apache.flink.table.data.RowData;

import org.headrace.plan.ClusterPlan;
import org.headrace.plan.RolePlan;

/**
 * A role with data: input 1 carries the rows, input 2 the control stream. Task thread only; see
 * {@link RoleCore}. Tasks run {@link ControlFirstRoleOperator}; the job graph sees this class.
 */
class FlatMapRoleOperator extends AbstractStreamOperator<RowData>
        implements TwoInputStreamOperator<RowData, String, RowData>, BoundedMultiInput {

    private static final long serialVersionUID = 1L;
    private static final int DATA = 1;

    private final transient RoleCore core;
    private transient boolean isControlKnown;

    FlatMapRoleOperator(StreamOperatorParameters<RowData> parameters, ClusterPlan cluster, RolePlan role) {
        super(parameters);
        core = new RoleCore(cluster, role, parameters);
    }

    /** Whether the control stream has had its first record, or has ended without one. */
    final boolean isControlKnown() {
        return isControlKnown;
    }

    @Override
    public void initializeState(StateInitializationContext context) throws Exception {
        super.initializeState(context);
        core.restore(context);
    }

    @Override
    public void open() throws Exception {
        super.open();
        core.open(getRuntimeContext(), true);
    }

    @Override
    public void processElement1(StreamRecord<RowData> element) throws Exception {
        core.write(element.getValue(), element.hasTimestamp(), element.hasTimestamp() ? element.getTimestamp() : 0);
    }

    @Override
    public void processElement2(StreamRecord<String> element) {
        isControlKnown = true;
        core.onControl(element.getValue());
    }

    @Override
    public void processWatermark1(Watermark mark) {
        core.onWatermark(mark.getTimestamp());
    }

    /** The control stream carries no time and holds none back. */
    @Override
    public void processWatermark2(Watermark mark) {}

    @Override
    protected void processWatermarkStatus(WatermarkStatus status, int index) {
        if (index == 0) {
            core.onWatermarkStatus(status);
        }
    }

    @Override
    public void endInput(int input) throws Exception {
        if (input == DATA) {
            core.onInputEnd();
        } else {
            isControlKnown = true;
            core.onControlEnd();
        }
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
