package org.headrace.am;

import org.apache.flink.annotation.Internal;
import org.apache.flink.api.common.eventtime.WatermarkStrategy;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.streaming.api.datastream.DataStreamSource;
import org.apache.flink.streaming.api.datastream.SingleOutputStreamOperator;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.streaming.api.transformations.PartitionTransformation;
import org.apache.flink.streaming.api.transformations.SourceTransformation;

import org.headrace.plan.ClusterPlan;
import org.headrace.plan.PlannedRole;

import java.util.Map;

/** Builds the am's part of the job graph: source, operator, control stream. */
@Internal
public final class AmStream {

    private AmStream() {}

    /**
     * Adds the am.
     *
     * @param plannedRoles filled by the caller until the job is submitted
     * @return the control stream, to be connected to every role; all roles are one pipelined region by it
     */
    public static DataStream<String> add(
            StreamExecutionEnvironment env, ClusterPlan cluster, byte[] payload, Map<String, PlannedRole> plannedRoles) {
        String name = cluster.name() + " am";
        DataStreamSource<String> source =
                env.fromSource(new AmSource(), WatermarkStrategy.noWatermarks(), name + " source", Types.STRING);
        SingleOutputStreamOperator<String> single = source.setParallelism(1).uid(cluster.uidPrefix() + "-am-source");
        ((SourceTransformation<?, ?, ?>) single.getTransformation()).setCoordinatorListeningID(listeningId(cluster));
        SingleOutputStreamOperator<String> am =
                single.transform(name, Types.STRING, new AmOperatorFactory(cluster, payload, plannedRoles));
        am.setParallelism(1).setMaxParallelism(1);
        DataStream<String> control = am.uid(cluster.amUid()).broadcast();
        // A barrier must not overtake a control record, nor a checkpoint keep one: ADR 0011.
        ((PartitionTransformation<String>) control.getTransformation()).getPartitioner().disableUnalignedCheckpoints();
        return control;
    }

    static String listeningId(ClusterPlan cluster) {
        return "headrace " + cluster.uidPrefix() + " am source";
    }
}
