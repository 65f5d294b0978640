package org.headrace.exchange;

import org.apache.flink.table.types.logical.LogicalType;

/** Types whose Flink bytes are their Arrow bytes. */
enum NumberKind {
    BYTE(1, "Byte", ""),
    SHORT(2, "Short", "Short"),
    INT(4, "Int", "Int"),
    LONG(8, "Long", "Long"),
    FLOAT(4, "Float", "Float"),
    DOUBLE(8, "Double", "Double");

    private final int width;
    private final String getSuffix;
    private final String putSuffix;

    NumberKind(int width, String getSuffix, String putSuffix) {
        this.width = width;
        this.getSuffix = getSuffix;
        this.putSuffix = putSuffix;
    }

    int width() {
        return width;
    }

    /** How {@code RowData}'s getter is called behind "get". */
    String getSuffix() {
        return getSuffix;
    }

    /** How {@code ByteBuffer}'s setter is called behind "put". */
    String putSuffix() {
        return putSuffix;
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
