package org.headrace.am;

import org.apache.flink.runtime.jobgraph.OperatorID;
import org.apache.flink.runtime.operators.coordination.OperatorCoordinator;
import org.apache.flink.streaming.api.operators.AbstractStreamOperatorFactory;
import org.apache.flink.streaming.api.operators.CoordinatedOperatorFactory;
import org.apache.flink.streaming.api.operators.OneInputStreamOperatorFactory;
import org.apache.flink.streaming.api.operators.StreamOperator;
import org.apache.flink.streaming.api.operators.StreamOperatorParameters;

import org.headrace.plan.ClusterPlan;
import org.headrace.plan.PlannedRole;

import java.util.Map;

/** Makes the am operator in a task and its coordinator in the JobManager. */
final class AmOperatorFactory extends AbstractStreamOperatorFactory<String>
        implements OneInputStreamOperatorFactory<String, String>, CoordinatedOperatorFactory<String> {

    private static final long serialVersionUID = 1L;

    private final ClusterPlan cluster;
    private final byte[] payload;
    private final Map<String, PlannedRole> plannedRoles;

    AmOperatorFactory(ClusterPlan cluster, byte[] payload, Map<String, PlannedRole> plannedRoles) {
        this.cluster = cluster;
        this.payload = payload.clone();
        this.plannedRoles = plannedRoles;
    }

    @Override
    @SuppressWarnings("unchecked") // Flink's signature: the caller knows the operator's type.
    public <T extends StreamOperator<String>> T createStreamOperator(StreamOperatorParameters<String> parameters) {
        return (T) new AmOperator(parameters, cluster, payload, plannedRoles);
    }

    @Override
    @SuppressWarnings("rawtypes") // Flink's signature.
    public Class<? extends StreamOperator> getStreamOperatorClass(ClassLoader classLoader) {
        return AmOperator.class;
    }

    @Override
    public OperatorCoordinator.Provider getCoordinatorProvider(String operatorName, OperatorID operatorId) {
        return new Provider(operatorId, cluster, plannedRoles);
    }

    private record Provider(OperatorID operatorId, ClusterPlan cluster, Map<String, PlannedRole> plannedRoles)
            implements OperatorCoordinator.Provider {

        @Override
        public OperatorID getOperatorId() {
            return operatorId;
        }

        @Override
        public OperatorCoordinator create(OperatorCoordinator.Context context) {
            return new AmCoordinator(context, cluster, plannedRoles);
        }
    }
}
