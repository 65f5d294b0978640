package org.headrace.sql;

import org.apache.flink.configuration.Configuration;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.JsonNode;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.node.ObjectNode;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.streaming.api.datastream.DataStreamSink;
import org.apache.flink.streaming.api.functions.sink.v2.DiscardingSink;
import org.apache.flink.table.api.ValidationException;
import org.apache.flink.table.connector.ChangelogMode;
import org.apache.flink.table.connector.ProviderContext;
import org.apache.flink.table.connector.sink.DataStreamSinkProvider;
import org.apache.flink.table.connector.sink.DynamicTableSink;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.types.logical.RowType;

import org.headrace.json.Lines;
import org.headrace.operator.ClusterBuilder;

/**
 * What is inserted goes to the workers of an ML cluster of its own, a part of the INSERT's job. The planner's
 * thread only.
 */
final class TrainingSink implements DynamicTableSink {

    private final String name;
    private final ObjectNode plan;
    private final Configuration python;
    private final RowType type;

    TrainingSink(String name, ObjectNode plan, Configuration python, RowType type) {
        this.name = name;
        this.plan = plan;
        this.python = python;
        this.type = type;
    }

    /** Rows are only added: the planner refuses an updating query. */
    @Override
    public ChangelogMode getChangelogMode(ChangelogMode requested) {
        return ChangelogMode.insertOnly();
    }

    @Override
    public SinkRuntimeProvider getSinkRuntimeProvider(Context context) {
        return new DataStreamSinkProvider() {
            @Override
            public DataStreamSink<?> consumeDataStream(ProviderContext provider, DataStream<RowData> rows) {
                return train(rows);
            }
        };
    }

    /** Plans the roles. Their empty streams meet in one sink: Flink runs what a sink can be reached from. */
    private DataStreamSink<RowData> train(DataStream<RowData> rows) {
        int epochs = Lines.requireInt(plan, "epochs");
        if (epochs > 1 && !ClusterBuilder.isBounded(rows)) {
            throw new ValidationException(
                    String.format(
                            "'epochs' = '%s' of table %s needs an input that ends, but a source of its rows is"
                                    + " unbounded: the first pass would never be over. Use 1, or a bounded one.",
                            epochs, name));
        }
        ClusterBuilder cluster =
                new ClusterBuilder(
                        rows.getExecutionEnvironment(),
                        Lines.requireObject(plan, "cluster").toString(),
                        PlanningChild.payload(plan),
                        python);
        DataStream<RowData> all = null;
        for (JsonNode each : plan.path("roles")) {
            ObjectNode role = (ObjectNode) each;
            boolean isFed = role.path("is_fed").booleanValue();
            // A sink does not see the whole job, which the bounds of Flink's scheduler need.
            ObjectNode document = Lines.requireObject(role, "document").put("is_least_required", true);
            DataStream<RowData> ended =
                    cluster.addRole(
                            document.toString(),
                            PlanningChild.payload(role),
                            isFed ? rows : null,
                            isFed ? type : null,
                            null);
            all = all == null ? ended : all.union(ended);
        }
        if (all == null) {
            throw new IllegalStateException("a plan without roles: " + plan);
        }
        return all.sinkTo(new DiscardingSink<>()).name(name + " end").setParallelism(1);
    }

    @Override
    public DynamicTableSink copy() {
        return new TrainingSink(name, plan, python, type);
    }

    @Override
    public String asSummaryString() {
        return "Headrace training " + name;
    }
}
