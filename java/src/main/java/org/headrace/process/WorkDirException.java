package org.headrace.process;

import org.apache.flink.annotation.Internal;

import java.io.IOException;

/** The files that a Python child needs cannot be written, for example because the disk is full. */
@Internal
public final class WorkDirException extends IOException {

    private static final long serialVersionUID = 1L;

    WorkDirException(String what, IOException cause) {
        super(
                String.format(
                        "%s: %s. The Python processes of a subtask need that place. Make room there, or set"
                                + " `io.tmp.dirs` in Flink's configuration to another directory.",
                        what, cause.getMessage()),
                cause);
    }
}
