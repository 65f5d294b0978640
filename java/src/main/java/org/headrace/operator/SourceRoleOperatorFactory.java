package org.headrace.operator;

import org.apache.flink.streaming.api.operators.AbstractStreamOperatorFactory;
import org.apache.flink.streaming.api.operators.OneInputStreamOperatorFactory;
import org.apache.flink.streaming.api.operators.StreamOperator;
import org.apache.flink.streaming.api.operators.StreamOperatorParameters;
import org.apache.flink.table.data.RowData;

import org.headrace.plan.ClusterPlan;
import org.headrace.plan.RolePlan;

/** Makes {@link SourceRoleOperator}s. */
final class SourceRoleOperatorFactory extends AbstractStreamOperatorFactory<RowData>
        implements OneInputStreamOperatorFactory<String, RowData> {

    private static final long serialVersionUID = 1L;

    private final ClusterPlan cluster;
    private final RolePlan role;

    SourceRoleOperatorFactory(ClusterPlan cluster, RolePlan role) {
        this.cluster = cluster;
        this.role = role;
    }

    @Override
    @SuppressWarnings("unchecked") // Flink's signature: the caller knows the operator's type.
    public <T extends StreamOperator<RowData>> T createStreamOperator(StreamOperatorParameters<RowData> parameters) {
        return (T) new SourceRoleOperator(parameters, cluster, role);
    }

    @Override
    @SuppressWarnings("rawtypes") // Flink's signature.
    public Class<? extends StreamOperator> getStreamOperatorClass(ClassLoader classLoader) {
        return SourceRoleOperator.class;
    }
}
