package org.headrace.exchange;

import org.apache.flink.annotation.Internal;

/** The algorithm process closed its connection without saying END: it died. */
@Internal
public final class PeerLostException extends ExchangeException {

    private static final long serialVersionUID = 1L;

    public PeerLostException(String message) {
        super(message);
    }

    public PeerLostException(String message, Throwable cause) {
        super(message, cause);
    }
}
