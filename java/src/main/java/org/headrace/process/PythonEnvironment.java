package org.headrace.process;

import org.apache.flink.annotation.Internal;
import org.apache.flink.api.common.JobID;
import org.apache.flink.api.common.cache.DistributedCache;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.python.PythonOptions;
import org.apache.flink.python.env.PythonDependencyInfo;
import org.apache.flink.python.env.process.ProcessPythonEnvironmentManager;

import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

import java.io.File;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;

/**
 * Interpreter and environment variables from PyFlink's dependency settings (files, archives,
 * requirements, interpreter), by Flink's own environment manager. The manager shares one copy of
 * the files per job and JVM and counts its users.
 *
 * <p>Thread model: {@link #command} may run pip and block for minutes; it is called on a child's own
 * thread. {@link #close} is called on the task thread and waits for a bounded time only.
 */
@Internal
public final class PythonEnvironment implements AutoCloseable {

    private static final Logger LOG = LoggerFactory.getLogger(PythonEnvironment.class);
    private static final String PYTHON_PATH = "PYTHONPATH";
    private static final long RELEASE_WAIT_MS = 3_000;
    private static final long PIP_END_MS = 10_000;
    private static final long PIP_LOOK_EVERY_MS = 50;

    private final Configuration pythonConfig;
    private final DistributedCache files;
    private final List<String> tmpDirs;
    private final JobID jobId;
    private final List<String> extraPythonPath;

    private final Object lock = new Object();
    private ProcessPythonEnvironmentManager manager;
    private boolean isClosed;
    private volatile Thread opening;

    /**
     * Describes an environment; nothing is unpacked yet.
     *
     * @param pythonConfig what {@code PythonConfigUtil.extractPythonConfiguration} gave
     * @param extraPythonPath entries appended to PYTHONPATH
     */
    public PythonEnvironment(
            Configuration pythonConfig,
            DistributedCache files,
            List<String> tmpDirs,
            JobID jobId,
            List<String> extraPythonPath) {
        this.pythonConfig = pythonConfig;
        this.files = files;
        this.tmpDirs = List.copyOf(tmpDirs);
        this.jobId = jobId;
        this.extraPythonPath = List.copyOf(extraPythonPath);
    }

    /**
     * Prepares the environment if need be and returns the command {@code python -m module}. Blocks,
     * for as long as pip takes; can be interrupted.
     *
     * @param workDir working directory, unless PyFlink's archives ask for their own
     * @throws Exception if the environment cannot be made; carries pip's output
     */
    public ProcessBuilder command(String module, Path workDir) throws Exception {
        Map<String, String> variables = openManager().getPythonEnv();
        String archives = variables.get("_PYTHON_WORKING_DIR");
        String interpreter = variables.getOrDefault("python", "python");
        if (archives != null && new File(archives, interpreter).exists()) {
            interpreter = new File(archives, interpreter).getAbsolutePath();
        }
        ProcessBuilder builder = new ProcessBuilder(interpreter, "-m", module);
        builder.directory(archives == null ? workDir.toFile() : new File(archives));
        builder.environment().putAll(variables);
        appendToPythonPath(builder, extraPythonPath);
        return builder;
    }

    /**
     * Whether one outlives the tasks of its job in a JVM. Flink removes a shipped directory five seconds after the
     * last of them, and unpacks it for the next one again, at the same place if there is but one to choose from.
     */
    public static boolean isLasting(Configuration pythonConfig, List<String> tmpDirs) {
        return tmpDirs.size() == 1 || !pythonConfig.contains(PythonOptions.PYTHON_FILES_DISTRIBUTED_CACHE_INFO);
    }

    /** Appends entries to the PYTHONPATH of a process, behind what it inherits. */
    public static void appendToPythonPath(ProcessBuilder builder, List<String> entries) {
        List<String> path = new ArrayList<>();
        String inherited = builder.environment().get(PYTHON_PATH);
        if (inherited != null && !inherited.isEmpty()) {
            path.add(inherited);
        }
        path.addAll(entries);
        if (!path.isEmpty()) {
            builder.environment().put(PYTHON_PATH, String.join(File.pathSeparator, path));
        }
    }

    private ProcessPythonEnvironmentManager openManager() throws Exception {
        synchronized (lock) {
            if (manager != null) {
                return manager;
            }
        }
        ProcessPythonEnvironmentManager opened =
                new ProcessPythonEnvironmentManager(
                        PythonDependencyInfo.create(pythonConfig, files),
                        tmpDirs.toArray(String[]::new),
                        System.getenv(),
                        jobId);
        opening = Thread.currentThread();
        try {
            opened.open();
        } finally {
            opening = null;
        }
        synchronized (lock) {
            if (!isClosed) {
                manager = opened;
                return opened;
            }
        }
        opened.close();
        throw new InterruptedException("The operator was closed while its Python environment was made.");
    }

    /**
     * Gives the environment back; the last user of a job in this JVM removes its files. A pip that runs
     * for it is killed. The manager's lock is held while any job of this JVM runs pip, hence the thread:
     * this waits 3 s at most.
     */
    @Override
    public void close() {
        ProcessPythonEnvironmentManager opened;
        synchronized (lock) {
            isClosed = true;
            opened = manager;
            manager = null;
        }
        if (opened == null && opening == null) {
            return;
        }
        Runnable release = opened == null ? this::endPip : () -> release(opened);
        Thread releaser = new Thread(release, "headrace release python environment");
        releaser.setDaemon(true);
        releaser.start();
        try {
            releaser.join(RELEASE_WAIT_MS);
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
        }
    }

    /** Flink tries a failed pip again, so this looks until the opening thread has given up. */
    private void endPip() {
        long deadline = System.nanoTime() + TimeUnit.MILLISECONDS.toNanos(PIP_END_MS);
        for (Thread each = opening; each != null && System.nanoTime() < deadline; each = opening) {
            if (isInPip(each)) {
                ProcessHandle.current().children().filter(PythonEnvironment::isPip).forEach(PythonEnvironment::kill);
            }
            each.interrupt();
            try {
                Thread.sleep(PIP_LOOK_EVERY_MS);
            } catch (InterruptedException e) {
                return;
            }
        }
    }

    /** Flink's lock lets one thread at a time run pip, so a pip below this JVM is then that thread's. */
    private static boolean isInPip(Thread thread) {
        return Arrays.stream(thread.getStackTrace()).anyMatch(each -> each.getMethodName().equals("pipInstallRequirements"));
    }

    private static void kill(ProcessHandle process) {
        List<ProcessHandle> below = process.descendants().toList();
        process.destroyForcibly();
        below.forEach(ProcessHandle::destroyForcibly);
    }

    private static boolean isPip(ProcessHandle process) {
        List<String> arguments = List.of(process.info().arguments().orElse(new String[0]));
        return arguments.contains("pip") && arguments.contains("install") && arguments.contains("--ignore-installed");
    }

    private static void release(ProcessPythonEnvironmentManager opened) {
        try {
            opened.close();
        } catch (Exception e) {
            LOG.warn("Could not release the Python environment", e);
        }
    }
}
