package org.headrace.sql;

import org.apache.flink.table.data.RowData;
import org.apache.flink.table.functions.AsyncPredictFunction;
import org.apache.flink.table.functions.FunctionContext;

import org.headrace.operator.RowScorer;
import org.headrace.plan.ClusterPlan;
import org.headrace.plan.RolePlan;
import org.headrace.process.TaskFacts;

import java.util.Collection;
import java.util.concurrent.CompletableFuture;

/** Scores the rows of one subtask of an {@code ML_PREDICT}. Task thread only; see {@link RowScorer}. */
public final class ScoringFunction extends AsyncPredictFunction {

    private static final long serialVersionUID = 1L;

    private final ClusterPlan cluster;
    private final RolePlan role;
    private transient RowScorer scorer;

    ScoringFunction(ClusterPlan cluster, RolePlan role) {
        this.cluster = cluster;
        this.role = role;
    }

    @Override
    public void open(FunctionContext context) throws Exception {
        scorer = new RowScorer(cluster, role, TaskFacts.of(context), context.getMetricGroup());
    }

    @Override
    public CompletableFuture<Collection<RowData>> asyncPredict(RowData row) {
        return scorer.score(row);
    }

    @Override
    public void close() {
        if (scorer != null) {
            scorer.close();
        }
    }
}
