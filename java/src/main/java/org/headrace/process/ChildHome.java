package org.headrace.process;

import org.apache.flink.annotation.Internal;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.configuration.HeartbeatManagerOptions;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.node.ObjectNode;

import org.headrace.json.Lines;
import org.headrace.plan.ClusterPlan;
import org.headrace.plan.MirrorPlan;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.time.Duration;

/**
 * What one subtask gives its child: a work directory with the plan's files, the Python environment
 * and the fields of the start line. Owns the child. One thread: the task's, or that
 * of a scorer; the child's own prepares its start, which may still go on when {@link #close} is called.
 */
@Internal
public final class ChildHome implements AutoCloseable {

    private static final String TLS = "tls";

    private final ClusterPlan cluster;
    private final String role;
    private final WorkDir workDir;
    private final PythonEnvironment python;
    private final Path spec;
    private final Path payloadFile;
    private final Duration stopGrace;
    private final FileMirror mirror;
    private final Configuration flink;
    private final boolean hasTls;
    private TaskFacts task;
    private ChildProcess child;

    private final Object lock = new Object();
    private boolean isClosed;

    /** Written before a child starts, read when it has said something. */
    private volatile String tlsName;

    /**
     * Makes the work directory and writes the plan's files into it.
     *
     * @param role name of the role; the child's label is role and subtask index
     * @param mirrorPlan what the child finds a copy of; null without
     */
    public ChildHome(
            ClusterPlan cluster,
            String role,
            String specJson,
            byte[] payload,
            MirrorPlan mirrorPlan,
            TaskFacts task)
            throws IOException {
        this.cluster = cluster;
        flink = task.flink();
        hasTls = InternalTls.isEnabled(flink);
        this.role = role;
        this.task = task;
        stopGrace = cluster.timeouts().stopGrace();
        python =
                new PythonEnvironment(
                        cluster.pythonConfig(), task.files(), task.tmpDirs(), task.jobId(), cluster.pythonPath());
        workDir = new WorkDir(task.tmpDirs());
        mirror =
                mirrorPlan == null
                        ? null
                        : new FileMirror(mirrorPlan, workDir.path().resolve("mirror"), "headrace " + title());
        try {
            spec = workDir.write("spec.json", specJson.getBytes(StandardCharsets.UTF_8));
            payloadFile = workDir.write("payload.pkl", payload);
        } catch (IOException | RuntimeException e) {
            workDir.close();
            throw e;
        }
    }

    /** Role and index, for example "worker-0". */
    public String label() {
        return role + "-" + task.index();
    }

    /** Job, role and index: what tells it apart from other jobs' in one TaskManager. */
    public String title() {
        return task.jobName() + " " + label();
    }

    public WorkDir workDir() {
        return workDir;
    }

    /** A fresh start line, for the caller to complete. */
    public ObjectNode startLine() {
        ObjectNode line =
                files(Lines.ofType("start"))
                        .put("job_name", task.jobName())
                        .put("index", task.index())
                        .put("parallelism", task.parallelism())
                        .put("host", task.host())
                        .put("deployment", task.deployment());
        if (mirror != null) {
            line.put("mirror", mirror.link().toString());
        }
        return line;
    }

    private ObjectNode files(ObjectNode line) {
        return line.put("role", role)
                .put("work_dir", workDir.path().toString())
                .put("spec_path", spec.toString())
                .put("payload_path", payloadFile.toString())
                .put("jvm_frozen_timeout_s", flinkPatienceS());
    }

    /** For how long Flink hears nothing of this JVM before its tasks are another's, in seconds. */
    private double flinkPatienceS() {
        return flink.get(HeartbeatManagerOptions.HEARTBEAT_TIMEOUT).toMillis() / 1000.0;
    }

    /**
     * A start line of a child that speaks with the master, or is it: it names the files of Flink's internal
     * certificate where that is in use. They are written when the child is started.
     */
    public ObjectNode startLineWithMaster() {
        ObjectNode line = startLine();
        if (hasTls) {
            InternalTls.putPaths(workDir, line.putObject(TLS));
        }
        return line;
    }

    /** A name in the certificate of the child that was started last; null without TLS. */
    public String tlsName() {
        return tlsName;
    }

    /** Starts a child in the background; an earlier one is closed first. */
    public ChildProcess start(String module, ObjectNode firstLine, ChildProcess.Listener listener) {
        if (child != null) {
            child.close();
        }
        boolean needsTls = firstLine.has(TLS);
        child =
                new ChildProcess(
                        label(),
                        "headrace " + title(),
                        () -> command(module, needsTls),
                        listener,
                        stopGrace);
        child.start(firstLine);
        return child;
    }

    /** Starts a child that waits for its start line: {@link #begin} sends it. */
    ChildProcess startAhead(String module, ChildProcess.Listener listener) {
        child =
                new ChildProcess(
                        role + " spare",
                        "headrace " + task.jobName() + " " + role + " spare",
                        () -> command(module, false),
                        listener,
                        stopGrace);
        child.start(files(Lines.ofType("prepare")));
        return child;
    }

    /** From now on this is the home of another subtask of the role, or of the same in a later attempt. */
    void moveTo(TaskFacts newTask) {
        task = newTask;
        child.rename(label());
    }

    /** Sends the start line to a child that waits for it; writes the files of TLS before, if it names them. */
    void begin(ObjectNode firstLine) throws IOException {
        if (firstLine.has(TLS)) {
            InternalTls.read(flink).writeInto(workDir);
        }
        child.send(firstLine);
    }

    private ProcessBuilder command(String module, boolean needsTls) throws Exception {
        if (needsTls) { // anew for each child, which removes the key
            InternalTls tls = InternalTls.read(flink);
            synchronized (lock) {
                if (isClosed) {
                    throw new IOException("The subtask was closed before its child was started");
                }
                tls.writeInto(workDir);
            }
            tlsName = tls.name();
        }
        if (mirror != null) {
            mirror.fetch();
        }
        return python.command(module, workDir.path());
    }

    /** Ends the child and removes the directory. Bounded; idempotent. */
    @Override
    public void close() {
        try {
            if (child != null) {
                child.close();
            }
        } finally {
            if (mirror != null) {
                mirror.close(); // first: who copies goes on to the Python environment
            }
            try {
                python.close();
            } finally {
                synchronized (lock) {
                    isClosed = true; // a key that is written later would stay
                }
                workDir.close();
            }
        }
    }
}
