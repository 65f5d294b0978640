package org.headrace.sql;

import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.node.ObjectNode;
import org.apache.flink.table.api.ValidationException;

import org.headrace.json.Lines;
import org.headrace.plan.Timeouts;
import org.headrace.process.PythonEnvironment;
import org.headrace.process.WorkDir;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.Base64;
import java.util.List;
import java.util.concurrent.TimeUnit;

/**
 * Asks Python what a table program's operators carry: runs {@code python -m headrace.sql.planner} once, a JSON object on
 * its stdin and one on its stdout.
 *
 * <p>Thread model: the planner's thread, which waits at most for the limit; an interrupt ends the wait. A child
 * that has not ended by itself when {@link #ask} returns or throws is killed, and waited for for some seconds.
 */
final class PlanningChild {

    private static final String MODULE = "headrace.sql.planner";
    private static final int TAIL_CHARS = 4_000;
    private static final long KILL_WAIT_MS = 3_000;

    private final String interpreter;
    private final List<String> pythonPath;
    private final Duration limit;

    PlanningChild(String interpreter, List<String> pythonPath, Duration limit) {
        this.interpreter = interpreter;
        this.pythonPath = pythonPath;
        this.limit = limit;
    }

    /**
     * Returns the child's answer.
     *
     * @throws ValidationException with Python's text if it refuses the question; with the end of what the child
     *     wrote to stderr if it cannot answer
     */
    ObjectNode ask(ObjectNode question) {
        try (WorkDir dir = new WorkDir(List.of(System.getProperty("java.io.tmpdir")))) {
            Path stdin = dir.write("question.json", question.toString().getBytes(StandardCharsets.UTF_8));
            Path stdout = dir.write("answer.json", new byte[0]);
            Path stderr = dir.write("stderr.txt", new byte[0]);
            String end = run(stdin, stdout, stderr);
            ObjectNode answer = end.isEmpty() ? parse(Files.readString(stdout)) : null;
            if (answer == null) {
                throw new ValidationException(
                        String.format(
                                "%s %s. Its last output:%n%s",
                                command(), end.isEmpty() ? "gave no answer" : end, tail(Files.readString(stderr))));
            }
            if (answer.has("error")) {
                throw new ValidationException(Lines.requireText(answer, "error"));
            }
            return answer;
        } catch (IOException e) {
            throw new ValidationException("No Python process can plan this: " + e.getMessage(), e);
        }
    }

    /** The bytes in the field {@code payload} of a part of an answer. */
    static byte[] payload(ObjectNode part) {
        return Base64.getDecoder().decode(Lines.requireText(part, "payload"));
    }

    /** Runs the child to its end; returns what was wrong with that, or an empty text. */
    private String run(Path stdin, Path stdout, Path stderr) {
        ProcessBuilder builder =
                new ProcessBuilder(interpreter, "-m", MODULE)
                        .directory(stdin.getParent().toFile()) // a module of this one would be missing on the workers
                        .redirectInput(stdin.toFile())
                        .redirectOutput(stdout.toFile())
                        .redirectError(stderr.toFile());
        PythonEnvironment.appendToPythonPath(builder, pythonPath);
        Process child;
        try {
            child = builder.start();
        } catch (IOException e) {
            throw new ValidationException(
                    String.format(
                            "%s cannot be started: %s. The option '%s' says which Python interpreter plans and scores,"
                                    + " '%s' which one plans.",
                            command(), e.getMessage(), SqlOptions.EXECUTABLE.key(), SqlOptions.CLIENT_EXECUTABLE.key()));
        }
        try {
            if (!child.waitFor(limit.toMillis(), TimeUnit.MILLISECONDS)) {
                return String.format(
                        "has not answered within %s (limit set by '%s')",
                        Timeouts.text(limit), SqlOptions.PLANNING_TIMEOUT.key());
            }
            return child.exitValue() == 0 ? "" : "ended with exit code " + child.exitValue();
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
            return "was interrupted";
        } finally {
            child.descendants().forEach(ProcessHandle::destroyForcibly);
            child.destroyForcibly();
            awaitEnd(child);
        }
    }

    /** A killed process takes a moment to be gone; an interrupt stays one. */
    private static void awaitEnd(Process child) {
        boolean isInterrupted = Thread.interrupted();
        try {
            child.waitFor(KILL_WAIT_MS, TimeUnit.MILLISECONDS);
        } catch (InterruptedException e) {
            isInterrupted = true;
        }
        if (isInterrupted) {
            Thread.currentThread().interrupt();
        }
    }

    private String command() {
        return interpreter + " -m " + MODULE;
    }

    private static ObjectNode parse(String text) {
        try {
            return Lines.parse(text);
        } catch (IllegalArgumentException e) {
            return null;
        }
    }

    private static String tail(String text) {
        return text.length() <= TAIL_CHARS ? text : text.substring(text.length() - TAIL_CHARS);
    }
}
