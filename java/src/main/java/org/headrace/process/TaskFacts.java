package org.headrace.process;

import org.apache.flink.annotation.Internal;
import org.apache.flink.api.common.JobID;
import org.apache.flink.api.common.TaskInfo;
import org.apache.flink.api.common.cache.DistributedCache;
import org.apache.flink.api.common.externalresource.ExternalResourceInfo;
import org.apache.flink.configuration.CheckpointingOptions;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.configuration.ConfigurationUtils;
import org.apache.flink.configuration.GlobalConfiguration;
import org.apache.flink.runtime.execution.Environment;
import org.apache.flink.runtime.metrics.scope.ScopeFormat;
import org.apache.flink.streaming.api.operators.StreamingRuntimeContext;
import org.apache.flink.table.functions.FunctionContext;

import java.util.List;
import java.util.Map;
import java.util.Set;

/**
 * What a child is told of the Flink subtask that it belongs to.
 *
 * @param index of the subtask, from 0
 * @param parallelism how many subtasks there are
 * @param deployment number of the subtask's start, from 0
 * @param jobName name of the job
 * @param jobId id of the job
 * @param host by which other hosts reach this one; "localhost" in Flink's embedded cluster
 * @param tmpDirs Flink's temporary directories
 * @param files what the job has shipped
 * @param hasCheckpoints whether the job makes checkpoints at intervals; false for a function of a table program
 * @param gpus numbers of the GPUs that Flink has assigned to the TaskManager
 * @param flink the TaskManager's configuration; empty for a function of a table program, which has no master
 */
@Internal
public record TaskFacts(
        int index,
        int parallelism,
        int deployment,
        String jobName,
        JobID jobId,
        String host,
        List<String> tmpDirs,
        DistributedCache files,
        boolean hasCheckpoints,
        List<String> gpus,
        Configuration flink) {

    /** What Flink's documentation calls the resource of its GPU plugin, and the plugin the number of one. */
    private static final String GPU_RESOURCE = "gpu";

    private static final String GPU_INDEX = "index";

    private static final String NO_HOST = "localhost";

    /** The facts that an operator finds. */
    public static TaskFacts of(Environment environment, StreamingRuntimeContext context) {
        return of(
                context.getTaskInfo(),
                context.getJobInfo().getJobName(),
                environment.getJobID(),
                environment.getTaskManagerInfo().getTaskManagerExternalAddress(),
                List.of(environment.getTaskManagerInfo().getTmpDirectories()),
                context.getDistributedCache(),
                CheckpointingOptions.isCheckpointingEnabled(environment.getJobConfiguration()),
                gpus(context.getExternalResourceInfos(GPU_RESOURCE)),
                environment.getTaskManagerInfo().getConfiguration());
    }

    /**
     * The facts that a function of a table program finds: Flink tells it of the job by the names of its
     * metrics only, and of temporary directories by its configuration file.
     */
    public static TaskFacts of(FunctionContext context) {
        Map<String, String> variables = context.getMetricGroup().getAllVariables();
        String jobId = variables.get(ScopeFormat.SCOPE_JOB_ID);
        return of(
                context.getTaskInfo(),
                variables.getOrDefault(ScopeFormat.SCOPE_JOB_NAME, "job"),
                jobId == null ? new JobID() : JobID.fromHexString(jobId),
                variables.get(ScopeFormat.SCOPE_HOST),
                List.of(ConfigurationUtils.parseTempDirectories(GlobalConfiguration.loadConfiguration())),
                new DistributedCache(Map.of()),
                false,
                gpus(context.getExternalResourceInfos(GPU_RESOURCE)),
                new Configuration());
    }

    private static List<String> gpus(Set<ExternalResourceInfo> found) {
        return found.stream().flatMap(gpu -> gpu.getProperty(GPU_INDEX).stream()).sorted().toList();
    }

    private static TaskFacts of(
            TaskInfo task,
            String jobName,
            JobID jobId,
            String host,
            List<String> tmpDirs,
            DistributedCache files,
            boolean hasCheckpoints,
            List<String> gpus,
            Configuration flink) {
        return new TaskFacts(
                task.getIndexOfThisSubtask(),
                task.getNumberOfParallelSubtasks(),
                task.getAttemptNumber(),
                jobName,
                jobId,
                host == null || host.isEmpty() ? NO_HOST : host,
                tmpDirs,
                files,
                hasCheckpoints,
                gpus,
                flink);
    }
}
