package org.headrace.operator;

import org.apache.flink.annotation.PublicEvolving;
import org.apache.flink.api.common.JobStatus;
import org.apache.flink.api.common.time.Deadline;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.core.execution.JobClient;
import org.apache.flink.python.util.PythonConfigUtil;
import org.apache.flink.runtime.jobgraph.JobResourceRequirements;
import org.apache.flink.runtime.jobgraph.JobVertex;
import org.apache.flink.runtime.jobgraph.JobVertexID;
import org.apache.flink.runtime.operators.coordination.CoordinationRequestGateway;
import org.apache.flink.shaded.guava33.com.google.common.hash.Hashing;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.streaming.api.datastream.SingleOutputStreamOperator;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.table.api.Table;
import org.apache.flink.table.api.bridge.java.StreamTableEnvironment;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.runtime.typeutils.InternalTypeInfo;
import org.apache.flink.table.types.logical.RowType;
import org.apache.flink.types.Row;
import org.apache.flink.util.InstantiationUtil;

import org.headrace.am.AmRequest;
import org.headrace.am.AmStream;
import org.headrace.plan.ClusterPlan;
import org.headrace.plan.PlannedRole;
import org.headrace.plan.RolePlan;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CancellationException;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;

/**
 * Adds one ML cluster to a job graph. The Python plan calls it through py4j.
 *
 * <p>Thread model: the plan's thread; nothing here runs in the cluster. What asks Flink
 * blocks for a bounded time, nothing else blocks.
 */
@PublicEvolving
public final class ClusterBuilder {

    private static final long REQUEST_MS = 10_000;
    private static final int DRAIN_S = 600; // a savepoint may wait for a checkpoint, by default as long as this
    private static final String BOUNDS = "$internal.job-resource-requirements";

    private final ClusterPlan cluster;
    private final DataStream<String> control;
    private final Map<String, PlannedRole> plannedRoles = new LinkedHashMap<>();
    private final Map<JobVertexID, Integer> leastParallelism = new HashMap<>();

    /**
     * Adds the am.
     *
     * @param clusterJson {@code name, uid_prefix, am_spec, timeouts, max_master_restarts,
     *     offer, python_path}
     * @param amPayload cloudpickle payload of the master
     */
    public ClusterBuilder(StreamExecutionEnvironment env, String clusterJson, byte[] amPayload) {
        this(env, clusterJson, amPayload, new Configuration());
    }

    /**
     * As the other constructor.
     *
     * @param python PyFlink's settings that go before those of the environment
     */
    public ClusterBuilder(
            StreamExecutionEnvironment env, String clusterJson, byte[] amPayload, Configuration python) {
        Configuration all = pythonConfig(env);
        all.addAll(python);
        cluster = ClusterPlan.parse(clusterJson, all);
        control = AmStream.add(env, cluster, amPayload, plannedRoles);
    }

    /**
     * Adds a role.
     *
     * @param roleJson {@code role, parallelism, least_parallelism, spec, exchange}
     * @param payload cloudpickle payload of the node
     * @param input rows for the role; null makes it a source role
     * @param inputType type of the rows; null without input
     * @param outputType type of the rows that its processes emit; null if they emit none
     * @return its rows; an empty stream of rows without columns if it emits none
     */
    public DataStream<RowData> addRole(
            String roleJson, byte[] payload, DataStream<RowData> input, RowType inputType, RowType outputType) {
        RolePlan role = RolePlan.parse(roleJson, payload, inputType, outputType);
        boolean isEndless = input != null && !isBounded(input);
        leastParallelism.put(vertexOf(cluster, role), role.leastParallelism());
        plannedRoles.put(role.role(), new PlannedRole(role.parallelism(), input != null, isEndless));
        String name = cluster.name() + " " + role.role();
        InternalTypeInfo<RowData> type = typeInfo(outputType);
        if (input == null) {
            return named(control.transform(name, type, new SourceRoleOperatorFactory(cluster, role)), cluster, role);
        }
        return named(
                input.connect(control).transform(name, type, new FlatMapRoleOperatorFactory(cluster, role)),
                cluster,
                role);
    }

    /**
     * Tells Flink's adaptive scheduler, if it runs the job, how few subtasks of each role are enough. Otherwise it
     * takes one for enough, and says nothing. Call it when the job is complete.
     *
     * <p>Source: {@code JobResourceRequirements.readFromExecutionPlan}, {@code
     * DefaultVertexParallelismStore.applyJobResourceRequirements}: all vertices have to be there.
     */
    public void bindParallelism(StreamExecutionEnvironment env) throws IOException {
        JobResourceRequirements.Builder bounds = JobResourceRequirements.newBuilder();
        for (JobVertex vertex : env.getStreamGraph(false).getJobGraph().getVertices()) {
            int least = leastParallelism.getOrDefault(vertex.getID(), 1);
            bounds.setParallelismForJobVertex(vertex.getID(), least, vertex.getParallelism());
        }
        InstantiationUtil.writeObjectToConfig(bounds.build(), (Configuration) env.getConfiguration(), BOUNDS);
    }

    /** Takes back what {@link #bindParallelism} has told, for the next job of the environment. */
    public static void unbindParallelism(StreamExecutionEnvironment env) {
        ((Configuration) env.getConfiguration()).removeKey(BOUNDS);
    }

    /**
     * Adds a role without master, chained to its input; its subtasks do not know each other.
     *
     * @param roleJson {@code role, parallelism, spec, exchange}
     * @param payload cloudpickle payload of the node
     * @param clusterJson as for the constructor, without what is for the am alone
     * @param outputType type of the rows that its processes emit; null if they emit none
     */
    public static DataStream<RowData> addChained(
            DataStream<RowData> input,
            String roleJson,
            byte[] payload,
            String clusterJson,
            RowType inputType,
            RowType outputType) {
        ClusterPlan cluster = ClusterPlan.parse(clusterJson, pythonConfig(input.getExecutionEnvironment()));
        RolePlan role = RolePlan.parse(roleJson, payload, inputType, outputType);
        return named(
                input.transform(role.role(), typeInfo(outputType), new ChainedRoleOperatorFactory(cluster, role)),
                cluster,
                role);
    }

    /**
     * The table as a stream of Flink's internal rows.
     *
     * @throws org.apache.flink.table.api.TableException if the table is not append-only
     */
    public static DataStream<RowData> toRowData(StreamTableEnvironment tableEnvironment, Table table) {
        return Tables.toRowData(tableEnvironment, table);
    }

    /**
     * The records of a stream as Flink's internal rows, with their timestamps.
     *
     * @param rowType columns of {@code tableEnvironment.fromDataStream(stream)}
     */
    public static DataStream<RowData> toRowData(
            StreamTableEnvironment tableEnvironment, DataStream<?> stream, RowType rowType) {
        return Streams.toRowData(tableEnvironment, stream, rowType);
    }

    /** The rows without a reason and those with one: see {@link Rejection#divide}. */
    public static List<DataStream<RowData>> divide(
            DataStream<RowData> rows, RowType type, String reason, RowType good, RowType rejected) {
        return Rejection.divide(rows, rows.getTransformation().getUid() + "-rejection", type, reason, good, rejected);
    }

    /** A stream of Flink's internal rows, as {@link #addRole} returns it, with the values that users see. */
    public static DataStream<Row> toDataStream(DataStream<RowData> stream, RowType type) {
        return Streams.fromRowData(stream, type);
    }

    /** Whether every source behind the stream ends by itself. */
    public static boolean isBounded(DataStream<RowData> stream) {
        return Sources.end(stream.getTransformation());
    }

    /** Whether rows of {@code stream} may have come out of {@code other}. */
    public static boolean isFedBy(DataStream<RowData> stream, DataStream<RowData> other) {
        return stream.getTransformation().getTransitivePredecessors().contains(other.getTransformation());
    }

    /** A stream of Flink's internal rows, as {@link #addRole} returns it, as a table. */
    public static Table fromRowData(
            StreamTableEnvironment tableEnvironment, DataStream<RowData> stream, RowType type) {
        return Tables.fromRowData(tableEnvironment, stream, type);
    }

    /** The columns of a table; time attributes become plain timestamps. */
    public static RowType rowType(Table table) {
        return Tables.rowType(table);
    }

    /**
     * The latest status of a cluster as JSON: docs/lifecycle.md, section 4.
     *
     * @param amUid the cluster's {@code uid_prefix} and "-am"
     * @param limitMs for how long it may block
     * @return an empty text if the job has ended
     * @throws Exception if the job runs and its am does not answer
     */
    public static String status(JobClient client, String amUid, long limitMs) throws Exception {
        Deadline deadline = Deadline.fromNow(Duration.ofMillis(limitMs));
        try {
            return ask(client, amUid, new AmRequest(AmRequest.Kind.STATUS, 0), limitMs);
        } catch (ExecutionException e) {
            if (stateOf(client, deadline.timeLeft().toMillis()).isGloballyTerminalState()) {
                return ""; // its coordinators end before the client knows
            }
            throw e;
        }
    }

    /**
     * The state of a job, such as "RUNNING". Blocks for at most {@code limitMs}.
     *
     * @throws Exception if Flink does not tell it
     */
    public static String state(JobClient client, long limitMs) throws Exception {
        return stateOf(client, limitMs).name();
    }

    /**
     * Asks whether the job has to be drained because its ML cluster has ended and an input goes on. The job does
     * not end by itself then, for ten minutes: after that a client that was lost holds nothing back. Blocks at most
     * 10 s.
     *
     * @throws Exception if the job is not running or does not answer
     */
    public static boolean needsDrain(JobClient client, String amUid) throws Exception {
        return Boolean.parseBoolean(ask(client, amUid, new AmRequest(AmRequest.Kind.DRAIN, 0, DRAIN_S), REQUEST_MS));
    }

    /** Says that Flink has not drained the job: its control stream may end. Blocks and throws as {@link #needsDrain}. */
    public static void drainFailed(JobClient client, String amUid) throws Exception {
        ask(client, amUid, AmRequest.Kind.DRAIN_FAILED);
    }

    /**
     * Asks that the job does not end by itself before a savepoint stops it. Blocks at most 10 s.
     *
     * @param holdS for how many seconds
     * @return milliseconds to wait before the order: 0, or where the ML cluster has ended, until its tasks are gone
     * @throws Exception if the job is not running or does not answer
     */
    public static long hold(JobClient client, String amUid, int holdS) throws Exception {
        return Long.parseLong(ask(client, amUid, new AmRequest(AmRequest.Kind.HOLD, 0, holdS), REQUEST_MS));
    }

    /** Takes {@link #hold} back; blocks and throws as it does. */
    public static void release(JobClient client, String amUid) throws Exception {
        ask(client, amUid, AmRequest.Kind.RELEASE);
    }

    /**
     * Waits for the end of a job, or of what was asked of Flink, in whatever way it ends. Blocks for at most {@code limitMs}.
     *
     * @return whether it has ended
     */
    public static boolean hasEnded(CompletableFuture<?> result, long limitMs)
            throws InterruptedException {
        try {
            result.get(limitMs, TimeUnit.MILLISECONDS);
            return true;
        } catch (TimeoutException e) {
            return false;
        } catch (ExecutionException | CancellationException e) {
            return true; // the caller takes the cause from the future
        }
    }

    private static String ask(JobClient client, String amUid, AmRequest.Kind kind) throws Exception {
        return ask(client, amUid, new AmRequest(kind, 0), REQUEST_MS);
    }

    private static String ask(JobClient client, String amUid, AmRequest question, long limitMs)
            throws Exception {
        return AmRequest.text(
                ((CoordinationRequestGateway) client)
                        .sendCoordinationRequest(amUid, question)
                        .get(limitMs, TimeUnit.MILLISECONDS));
    }

    private static JobStatus stateOf(JobClient client, long limitMs) throws Exception {
        return client.getJobStatus().get(limitMs, TimeUnit.MILLISECONDS);
    }

    private static Configuration pythonConfig(StreamExecutionEnvironment env) {
        return PythonConfigUtil.extractPythonConfiguration(env.getConfiguration());
    }

    private static InternalTypeInfo<RowData> typeInfo(RowType outputType) {
        return InternalTypeInfo.of(outputType == null ? RowType.of() : outputType);
    }

    /** Source: {@code StreamGraphHasherV2.generateUserSpecifiedHash}; a role is never chained to its inputs. */
    private static JobVertexID vertexOf(ClusterPlan cluster, RolePlan role) {
        byte[] hash = Hashing.murmur3_128(0).hashString(uidOf(cluster, role), StandardCharsets.UTF_8).asBytes();
        return new JobVertexID(hash);
    }

    private static String uidOf(ClusterPlan cluster, RolePlan role) {
        return cluster.uidPrefix() + "-" + role.role();
    }

    private static DataStream<RowData> named(
            SingleOutputStreamOperator<RowData> operator, ClusterPlan cluster, RolePlan role) {
        return operator.setParallelism(role.parallelism()).uid(uidOf(cluster, role));
    }
}
