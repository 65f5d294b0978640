package org.headrace.process;

import org.apache.flink.annotation.Internal;
import org.apache.flink.runtime.execution.SuppressRestartsException;

/**
 * A Python child of an operator failed. The message is complete: it carries the Python traceback, or
 * the exit code and the last lines of output, and is meant to be read by the user.
 */
@Internal
public final class PythonProcessException extends Exception {

    private static final long serialVersionUID = 1L;

    public PythonProcessException(String message) {
        super(message);
    }

    public PythonProcessException(String message, Throwable cause) {
        super(message, cause);
    }

    /**
     * The exception to throw in a task.
     *
     * @param message full text
     * @param isRestartable false if a restart cannot mend it; Flink then fails the job at once,
     *     whatever its restart strategy says
     */
    public static Exception of(String message, boolean isRestartable) {
        PythonProcessException failure = new PythonProcessException(message);
        return isRestartable ? failure : new SuppressRestartsException(failure);
    }
}
