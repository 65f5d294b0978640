package org.headrace.sql;

import org.apache.flink.table.api.config.MLPredictRuntimeConfigOptions;
import org.apache.flink.table.functions.AsyncPredictFunction;
import org.apache.flink.table.ml.AsyncPredictRuntimeProvider;
import org.apache.flink.table.ml.ModelProvider;

import org.headrace.plan.ClusterPlan;
import org.headrace.plan.RolePlan;

import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * A model as planned: what its functions carry. Immutable.
 *
 * @param inFlight how many rows Flink hands a function at a time, unless the query says so
 */
record HeadraceModelProvider(ClusterPlan cluster, RolePlan role, int inFlight) implements AsyncPredictRuntimeProvider {

    private static final Logger LOG = LoggerFactory.getLogger(HeadraceModelProvider.class);

    @Override
    public AsyncPredictFunction createAsyncPredictFunction(Context context) {
        Integer ofQuery =
                context.runtimeConfig().get(MLPredictRuntimeConfigOptions.ASYNC_MAX_CONCURRENT_OPERATIONS);
        warnOfSmallBatches(ofQuery == null ? inFlight : ofQuery);
        return new ScoringFunction(cluster, role);
    }

    @Override
    public ModelProvider copy() {
        return this;
    }

    private void warnOfSmallBatches(int rows) {
        int batchRows = role.exchange().batchRows();
        if (rows < 2 * batchRows) {
            LOG.warn(
                    "Model {} scores {} rows in a batch at most, because Flink hands it {} at a time. For 'batch-rows' ="
                            + " '{}' set '{}' = '{}': one batch is scored while the next one fills.",
                    role.role(),
                    Math.min(rows, batchRows),
                    rows,
                    batchRows,
                    HeadraceModelFactory.IN_FLIGHT.key(),
                    2 * batchRows);
        }
    }
}
