package org.headrace.process;

import org.apache.flink.annotation.Internal;

import java.io.IOException;

/** What a process needs cannot be copied to its host. A restart may mend it. */
@Internal
public final class MirrorException extends IOException {

    private static final long serialVersionUID = 1L;

    MirrorException(String uri, IOException cause) {
        super(
                String.format(
                        "%s cannot be copied to this host: %s: %s. Is the path right, and has every TaskManager the"
                                + " file system's plugin and the right to read it?",
                        uri, cause.getClass().getSimpleName(), cause.getMessage()),
                cause);
    }
}
