package org.headrace.operator;

import org.apache.flink.streaming.api.operators.AbstractStreamOperatorFactory;
import org.apache.flink.streaming.api.operators.TwoInputStreamOperatorFactory;
import org.apache.flink.streaming.api.operators.StreamOperator;
import org.apache.flink.streaming.api.operators.StreamOperatorParameters;
import org.apache.flink.table.data.RowData;

import org.headrace.plan.ClusterPlan;
import org.headrace.plan.RolePlan;

/**
 * Makes role operators with data and control input: {@link ControlFirstRoleOperator}s.
 *
 * <p>{@link #getStreamOperatorClass} names their supertype: Flink refuses to plan checkpoints for a class
 * that is {@code InputSelectable}, and the checks of ADR 0011 make ours safe. In a task Flink looks at the instance.
 */
final class FlatMapRoleOperatorFactory extends AbstractStreamOperatorFactory<RowData>
        implements TwoInputStreamOperatorFactory<RowData, String, RowData> {

    private static final long serialVersionUID = 1L;

    private final ClusterPlan cluster;
    private final RolePlan role;

    FlatMapRoleOperatorFactory(ClusterPlan cluster, RolePlan role) {
        this.cluster = cluster;
        this.role = role;
    }

    @Override
    @SuppressWarnings("unchecked") // Flink's signature: the caller knows the operator's type.
    public <T extends StreamOperator<RowData>> T createStreamOperator(StreamOperatorParameters<RowData> parameters) {
        return (T) new ControlFirstRoleOperator(parameters, cluster, role);
    }

    @Override
    @SuppressWarnings("rawtypes") // Flink's signature.
    public Class<? extends StreamOperator> getStreamOperatorClass(ClassLoader classLoader) {
        return FlatMapRoleOperator.class;
    }
}
