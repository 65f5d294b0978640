package org.headrace.operator;

import org.apache.flink.streaming.api.operators.AbstractStreamOperator;
import org.apache.flink.streaming.api.operators.BoundedOneInput;
import org.apache.flink.streaming.api.operators.OneInputStreamOperator;
import org.apache.flink.streaming.api.operators.StreamOperatorParameters;
import org.apache.flink.streaming.api.watermark.Watermark;
import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;
import org.apache.flink.streaming.runtime.watermarkstatus.WatermarkStatus;
import org.apache.flink.table.data.RowData;

import org.headrace.plan.ClusterPlan;
import org.headrace.plan.RolePlan;

/** A role without data: the control stream is its only input. Task thread only; see {@link RoleCore}. */
final class SourceRoleOperator extends AbstractStreamOperator<RowData>
        implements OneInputStreamOperator<String, RowData>, BoundedOneInput {

    private static final long serialVersionUID = 1L;

    private final transient RoleCore core;

    SourceRoleOperator(StreamOperatorParameters<RowData> parameters, ClusterPlan cluster, RolePlan role) {
        super(parameters);
        core = new RoleCore(cluster, role, parameters);
    }

    @Override
    public void open() throws Exception {
        super.open();
        core.open(getRuntimeContext(), true);
    }

    @Override
    public void processElement(StreamRecord<String> element) {
        core.onControl(element.getValue());
    }

    /** The control stream carries no time; the process's own watermarks are the only ones. */
    @Override
    public void processWatermark(Watermark mark) {}

    @Override
    public void processWatermarkStatus(WatermarkStatus status) {}

    @Override
    public void endInput() {
        core.onControlEnd();
    }

    @Override
    public void notifyCheckpointComplete(long checkpointId) throws Exception {
        super.notifyCheckpointComplete(checkpointId);
        core.onCheckpointComplete(checkpointId);
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
