package org.headrace.sql;

import org.apache.flink.table.api.ValidationException;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.functions.AsyncPredictFunction;
import org.apache.flink.table.functions.FunctionContext;
import org.apache.flink.table.functions.SpecializedFunction;
import org.apache.flink.table.functions.UserDefinedFunction;
import org.apache.flink.table.types.DataType;
import org.apache.flink.table.types.logical.LogicalType;
import org.apache.flink.table.types.logical.RowType;
import org.apache.flink.table.types.logical.utils.LogicalTypeCasts;

import org.headrace.operator.RowScorer;
import org.headrace.plan.ClusterPlan;
import org.headrace.plan.RolePlan;
import org.headrace.process.TaskFacts;

import java.util.Collection;
import java.util.List;
import java.util.concurrent.CompletableFuture;

/** Scores the rows of one subtask of an {@code ML_PREDICT}. Task thread only; see {@link RowScorer}. */
public final class ScoringFunction extends AsyncPredictFunction implements SpecializedFunction {

    private static final long serialVersionUID = 1L;

    private final ClusterPlan cluster;
    private final RolePlan role;
    private transient RowScorer scorer;

    ScoringFunction(ClusterPlan cluster, RolePlan role) {
        this.cluster = cluster;
        this.role = role;
    }

    /**
     * Compares the columns of the query with those of the model. Flink accepts what it could cast, an INT for a
     * FLOAT, and then hands over the INT.
     */
    @Override
    public UserDefinedFunction specialize(SpecializedContext context) {
        List<DataType> given = context.getCallContext().getArgumentDataTypes();
        List<RowType.RowField> wanted = role.inputType().getFields();
        for (int place = 0; place < wanted.size(); place++) {
            LogicalType type = given.get(place).getLogicalType();
            RowType.RowField column = wanted.get(place);
            if (!LogicalTypeCasts.supportsAvoidingCast(type, column.getType())) {
                throw new ValidationException(
                        String.format(
                                "Column %s of the DESCRIPTOR is %s, and the INPUT column %s of model %s is %s. Flink"
                                        + " does not convert it: write CAST(... AS %s) in the query.",
                                place + 1,
                                type.asSummaryString(),
                                column.getName(),
                                role.role(),
                                column.getType().asSummaryString(),
                                column.getType().copy(true).asSummaryString()));
            }
        }
        return this;
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
