package org.headrace.sql;

import org.apache.flink.table.functions.AsyncPredictFunction;
import org.apache.flink.table.ml.AsyncPredictRuntimeProvider;
import org.apache.flink.table.ml.ModelProvider;

import org.headrace.plan.ClusterPlan;
import org.headrace.plan.RolePlan;

/** A model as planned: what its functions carry. Immutable. */
record HeadraceModelProvider(ClusterPlan cluster, RolePlan role) implements AsyncPredictRuntimeProvider {

    @Override
    public AsyncPredictFunction createAsyncPredictFunction(Context context) {
        return new ScoringFunction(cluster, role);
    }

    @Override
    public ModelProvider copy() {
        return this;
    }
}
