package org.headrace.process;

import org.apache.flink.annotation.Internal;

import java.io.IOException;

/** Flink's internal certificate cannot be used as its settings are. Never shows a password. */
@Internal
public final class TlsSettingsException extends IOException {

    private static final long serialVersionUID = 1L;

    TlsSettingsException(String what, Throwable cause) {
        super(
                what
                        + " The RPC of Headrace's processes uses Flink's internal certificate, since"
                        + " `security.ssl.internal.enabled` is true on this TaskManager.",
                cause);
    }
}
