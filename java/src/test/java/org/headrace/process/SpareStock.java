package org.headrace.process;

import org.apache.flink.api.common.JobID;
import org.apache.flink.api.common.cache.DistributedCache;
import org.apache.flink.api.common.functions.RuntimeContext;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.python.PythonOptions;

import org.headrace.plan.ClusterPlan;

import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.lang.reflect.Proxy;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;

/**
 * The spares of one job, without its tasks: each line on stdin is what a subtask of the role would do, or
 * Flink, and is answered by a line. What was taken is closed at the end of stdin.
 */
public final class SpareStock {

    private static final String ROLE = "worker";

    private SpareStock() {}

    /**
     * Runs to the end of stdin.
     *
     * @param args the cluster's plan, the node's spec, both JSON; path of the payload; directory for
     *     temporary files; Python interpreter
     */
    public static void main(String[] args) throws Exception {
        Configuration python = new Configuration();
        python.set(PythonOptions.PYTHON_EXECUTABLE, args[4]);
        ClusterPlan cluster = ClusterPlan.parse(args[0], python);
        byte[] payload = Files.readAllBytes(Path.of(args[2]));
        TaskFacts task =
                new TaskFacts(
                        0,
                        1,
                        0,
                        cluster.name(),
                        new JobID(),
                        "localhost",
                        List.of(args[3]),
                        new DistributedCache(Map.of()),
                        false,
                        List.of(),
                        new Configuration());
        List<Runnable> hooks = new ArrayList<>();
        List<SpareNode> taken = new ArrayList<>();
        SpareNodes spares = SpareNodes.of(task.jobId(), context(hooks));
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            String answer = "ok";
            switch (line) {
                case "enter":
                    spares.enter(ROLE);
                    break;
                case "leave":
                case "leave for good":
                    spares.leave(ROLE, line.equals("leave for good"));
                    break;
                case "make":
                    spares.make(
                            ROLE,
                            0,
                            cluster.nodeModule(),
                            () -> new ChildHome(cluster, ROLE, args[1], payload, null, task),
                            Duration.ZERO);
                    break;
                case "take":
                    SpareNode found = spares.take(ROLE, task);
                    if (found != null) {
                        taken.add(found);
                    }
                    answer = found == null ? "none" : String.valueOf(found.child().pid().orElse(0));
                    break;
                case "release":
                    hooks.forEach(Runnable::run);
                    break;
                default:
                    answer = "unknown";
            }
            System.out.println(answer);
        }
        taken.forEach(each -> each.home().close());
    }

    /** What Flink gives a task, as far as it is asked for. */
    private static RuntimeContext context(List<Runnable> hooks) {
        ClassLoader loader = SpareStock.class.getClassLoader();
        return (RuntimeContext)
                Proxy.newProxyInstance(
                        loader,
                        new Class<?>[] {RuntimeContext.class},
                        (proxy, method, arguments) -> {
                            switch (method.getName()) {
                                case "getUserCodeClassLoader":
                                    return loader;
                                case "registerUserCodeClassLoaderReleaseHookIfAbsent":
                                    hooks.add((Runnable) arguments[1]);
                                    return null;
                                default:
                                    throw new UnsupportedOperationException(method.getName());
                            }
                        });
    }
}
