package org.headrace.operator;

import org.apache.flink.streaming.api.operators.InputSelectable;
import org.apache.flink.streaming.api.operators.InputSelection;
import org.apache.flink.streaming.api.operators.StreamOperatorParameters;
import org.apache.flink.table.data.RowData;

import org.headrace.plan.ClusterPlan;
import org.headrace.plan.RolePlan;

/**
 * Reads the control stream alone until its first record: rows that came earlier could fill the queue
 * and block the task thread, which then never learned where the master is. See ADR 0011 for why this is
 * safe with checkpoints.
 */
final class ControlFirstRoleOperator extends FlatMapRoleOperator implements InputSelectable {

    private static final long serialVersionUID = 1L;

    ControlFirstRoleOperator(StreamOperatorParameters<RowData> parameters, ClusterPlan cluster, RolePlan role) {
        super(parameters, cluster, role);
    }

    @Override
    public InputSelection nextSelection() {
        return isControlKnown() ? InputSelection.ALL : InputSelection.SECOND;
    }
}
