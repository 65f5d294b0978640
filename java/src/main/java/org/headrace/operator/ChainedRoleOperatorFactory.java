package org.headrace.operator;

import org.apache.flink.streaming.api.operators.AbstractStreamOperatorFactory;
import org.apache.flink.streaming.api.operators.OneInputStreamOperatorFactory;
import org.apache.flink.streaming.api.operators.StreamOperator;
import org.apache.flink.streaming.api.operators.StreamOperatorParameters;
import org.apache.flink.streaming.api.operators.legacy.YieldingOperatorFactory;
import org.apache.flink.table.data.RowData;

import org.headrace.plan.ClusterPlan;
import org.headrace.plan.RolePlan;

/**
 * Makes {@link ChainedRoleOperator}s.
 *
 * <p>The mark {@code YieldingOperatorFactory} keeps Flink from chaining it to a source of the old kind
 * (the SQL connector {@code datagen} is one), whose rows come on a thread that must not yield.
 */
@SuppressWarnings("deprecation") // YieldingOperatorFactory goes with the old sources
final class ChainedRoleOperatorFactory extends AbstractStreamOperatorFactory<RowData>
        implements OneInputStreamOperatorFactory<RowData, RowData>, YieldingOperatorFactory<RowData> {

    private static final long serialVersionUID = 1L;

    private final ClusterPlan cluster;
    private final RolePlan role;

    ChainedRoleOperatorFactory(ClusterPlan cluster, RolePlan role) {
        this.cluster = cluster;
        this.role = role;
    }

    @Override
    @SuppressWarnings("unchecked") // Flink's signature: the caller knows the operator's type.
    public <T extends StreamOperator<RowData>> T createStreamOperator(StreamOperatorParameters<RowData> parameters) {
        return (T) new ChainedRoleOperator(parameters, cluster, role);
    }

    @Override
    @SuppressWarnings("rawtypes") // Flink's signature.
    public Class<? extends StreamOperator> getStreamOperatorClass(ClassLoader classLoader) {
        return ChainedRoleOperator.class;
    }
}
