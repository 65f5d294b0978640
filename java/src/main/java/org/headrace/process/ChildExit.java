package org.headrace.process;

import org.apache.flink.annotation.Internal;
import org.apache.flink.runtime.execution.SuppressRestartsException;

import java.io.IOException;
import java.util.List;
import java.util.OptionalInt;
import java.util.Set;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/**
 * How a child ended.
 *
 * @param exitCode its exit code; empty if it never started, or was killed as nobody could serve it
 * @param lastLines the last lines that it wrote to stderr, oldest first
 * @param cause why it could not be started; null otherwise
 */
@Internal
public record ChildExit(OptionalInt exitCode, List<String> lastLines, Throwable cause) {

    private static final int SIGNAL_BASE = 128;

    /** EAGAIN, ENOMEM, ENFILE and EMFILE. */
    private static final Set<String> SCARCITIES = Set.of("11", "12", "23", "24");

    /** What {@code ProcessBuilder.start} says, in Java 17 and later: program, directory if any, number of the error. */
    private static final Pattern NOT_STARTED =
            Pattern.compile("Cannot run program \".*[\")]: (?:Exec failed, )?error(?:=|: )(\\d+)\\b", Pattern.DOTALL);

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
     * machine had no memory, threads, process numbers or open files for, or whose files could not be copied or written,
     * does not.
     *
     * @param text the failure text
     */
    public Exception toException(String text) {
        PythonProcessException failure = new PythonProcessException(text, cause);
        boolean isOfPlace = cause instanceof MirrorException || cause instanceof WorkDirException;
        boolean isForGood = exitCode.isEmpty() && !isOfScarcity(cause) && !isOfPlace;
        return isForGood ? new SuppressRestartsException(failure) : failure;
    }

    private static boolean isOfScarcity(Throwable cause) {
        for (Throwable each = cause; each != null; each = each.getCause()) {
            if (each instanceof OutOfMemoryError) { // no thread is one
                return true;
            }
            Matcher start = each instanceof IOException ? NOT_STARTED.matcher(String.valueOf(each.getMessage())) : null;
            if (start != null && start.lookingAt()) {
                return SCARCITIES.contains(start.group(1));
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
