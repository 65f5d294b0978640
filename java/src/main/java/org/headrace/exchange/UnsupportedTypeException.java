package org.headrace.exchange;

import org.apache.flink.annotation.Internal;
import org.apache.flink.table.types.logical.LogicalType;

/** A column has a type that cannot travel to the process; raised before any row is sent. */
@Internal
public final class UnsupportedTypeException extends ExchangeException {

    private static final long serialVersionUID = 1L;

    UnsupportedTypeException(String column, LogicalType type) {
        super(
                String.format(
                        "Column `%s` has type %s, which cannot travel to the process."
                                + " Cast it to a type of the table in docs/exchange.md (numbers,"
                                + " BOOLEAN, DECIMAL, STRING, BYTES, DATE, TIME, TIMESTAMP,"
                                + " TIMESTAMP_LTZ, ARRAY, ROW, MAP), or leave it out.",
                        column, type.asSummaryString()));
    }
}
