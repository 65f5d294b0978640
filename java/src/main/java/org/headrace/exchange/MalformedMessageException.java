package org.headrace.exchange;

import org.apache.flink.annotation.Internal;

/** The process sent bytes that docs/exchange.md does not allow: a defect, or a foreign process. */
@Internal
public final class MalformedMessageException extends ExchangeException {

    private static final long serialVersionUID = 1L;

    public MalformedMessageException(String message) {
        super(message);
    }

    public MalformedMessageException(String message, Throwable cause) {
        super(message, cause);
    }
}
