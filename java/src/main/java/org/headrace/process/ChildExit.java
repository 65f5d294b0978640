package org.headrace.process;

import org.apache.flink.annotation.Internal;
import org.apache.flink.runtime.execution.SuppressRestartsException;

import java.util.List;
import java.util.OptionalInt;

/**
 * How a child ended.
 *
 * @param exitCode its exit code; empty if it never started
 * @param lastLines the last lines that it wrote to stderr, oldest first
 * @param cause why it could not be started; null otherwise
 */
@Internal
public record ChildExit(OptionalInt exitCode, List<String> lastLines, Throwable cause) {

    private static final int SIGNAL_BASE = 128;

    /**
     * The failure text.
     *
     * @param what the child, for example "The node process of worker-0"
     */
    public String describe(String what) {
        StringBuilder text = new StringBuilder(what);
        if (exitCode.isEmpty()) {
            text.append(" could not be started");
            for (Throwable each = cause; each != null; each = each.getCause()) {
                text.append(": ").append(each.getMessage() == null ? each.toString() : each.getMessage());
            }
        } else if (exitCode.getAsInt() > SIGNAL_BASE) {
            text.append(" was ended by signal ").append(signalName(exitCode.getAsInt() - SIGNAL_BASE));
        } else {
            text.append(" ended unexpectedly with exit code ").append(exitCode.getAsInt());
        }
        text.append('.');
        if (!lastLines.isEmpty()) {
            text.append(" Its last output:\n  ").append(String.join("\n  ", lastLines));
        }
        return text.toString();
    }

    /**
     * The exception to throw for this end. A child that could not be started (no such interpreter,
     * requirements that pip cannot install after Flink's own retries) fails the job for good; one that the
     * machine had no memory or process numbers for does not.
     *
     * @param text the failure text
     */
    public Exception toException(String text) {
        PythonProcessException failure = new PythonProcessException(text, cause);
        return exitCode.isEmpty() && !isOfScarcity(cause) ? new SuppressRestartsException(failure) : failure;
    }

    /** EAGAIN or ENOMEM, as {@code ProcessBuilder.start} tells them. */
    private static boolean isOfScarcity(Throwable cause) {
        for (Throwable each = cause; each != null; each = each.getCause()) {
            String message = String.valueOf(each.getMessage());
            if (message.contains("error=11,") || message.contains("error=12,")) {
                return true;
            }
        }
        return false;
    }

    private static String signalName(int number) {
        switch (number) {
            case 6:
                return "SIGABRT";
            case 9:
                return "SIGKILL (of the kernel, if memory ran out)";
            case 11:
                return "SIGSEGV";
            case 15:
                return "SIGTERM";
            default:
                return String.valueOf(number);
        }
    }
}
