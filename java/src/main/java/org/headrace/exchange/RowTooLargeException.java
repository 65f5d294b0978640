package org.headrace.exchange;

import org.apache.flink.annotation.Internal;

/** One row needs more bytes than the setting `exchange.max_row_bytes` allows. */
@Internal
public final class RowTooLargeException extends ExchangeException {

    private static final long serialVersionUID = 1L;

    private final long rowBytes;

    public RowTooLargeException(long rowBytes, long limitBytes) {
        super(
                String.format(
                        "A row needs %d bytes, more than `exchange.max_row_bytes`=%d. It was not"
                                + " sent. Raise the setting, or split the row.",
                        rowBytes, limitBytes));
        this.rowBytes = rowBytes;
    }

    public long rowBytes() {
        return rowBytes;
    }
}
