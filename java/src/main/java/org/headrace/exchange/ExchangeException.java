package org.headrace.exchange;

import org.apache.flink.annotation.Internal;

/** The memory queue broke, or was asked for what it cannot carry; the task fails with it. */
@Internal
public class ExchangeException extends RuntimeException {

    private static final long serialVersionUID = 1L;

    public ExchangeException(String message) {
        super(message);
    }

    public ExchangeException(String message, Throwable cause) {
        super(message, cause);
    }
}
