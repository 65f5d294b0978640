package org.headrace.exchange;

import org.apache.flink.table.types.logical.LogicalType;

/** Types whose Flink bytes are their Arrow bytes. */
enum NumberKind {
    BYTE(1),
    SHORT(2),
    INT(4),
    LONG(8),
    FLOAT(4),
    DOUBLE(8);

    private final int width;

    NumberKind(int width) {
        this.width = width;
    }

    int width() {
        return width;
    }

    /** The kind of {@code type}, or null if its bytes need another treatment. */
    static NumberKind of(LogicalType type) {
        switch (type.getTypeRoot()) {
            case TINYINT:
                return BYTE;
            case SMALLINT:
                return SHORT;
            case INTEGER:
            case DATE:
                return INT;
            case BIGINT:
                return LONG;
            case FLOAT:
                return FLOAT;
            case DOUBLE:
                return DOUBLE;
            default:
                return null;
        }
    }
}
