package org.headrace.tfrecord;

import org.apache.flink.table.data.ArrayData;
import org.apache.flink.table.data.GenericArrayData;
import org.apache.flink.table.data.StringData;
import org.apache.flink.table.data.binary.BinaryStringData;
import org.apache.flink.table.types.logical.LogicalType;
import org.apache.flink.table.types.logical.LogicalTypeRoot;
import org.apache.flink.table.types.logical.utils.LogicalTypeChecks;

import java.nio.ByteBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;

/** Makes Flink's internal value of one column from the values of its feature. Not safe for several threads. */
final class ColumnReader {

    private final String name;
    private final LogicalType type;
    private final FeatureKind kind;
    private final boolean isArray;
    private final LogicalTypeRoot root;
    private final int maxLength;

    /** @param type one that {@link ColumnTypes#requireReadable} has let pass */
    ColumnReader(String name, LogicalType type) {
        this.name = name;
        this.type = type;
        LogicalType element = ColumnTypes.elementType(type);
        this.kind = ColumnTypes.kindOf(element);
        this.isArray = type.is(LogicalTypeRoot.ARRAY);
        this.root = element.getTypeRoot();
        this.maxLength = kind == FeatureKind.BYTES ? LogicalTypeChecks.getLength(element) : 0;
    }

    /** The value; null if the feature has no value, where the column allows it. */
    Object read(FeatureValues values) throws MisfitException {
        if (values.kind() == null || values.count() == 0 && !isArray && values.kind() == kind) {
            return missing();
        }
        if (values.kind() != kind || values.count() > 1 && !isArray) {
            throw new MisfitException(
                    String.format(
                            "feature `%s` is %s of %d, but the column is declared %s, which takes %s%s. %s",
                            name,
                            values.kind(),
                            values.count(),
                            type.asSummaryString(),
                            kind,
                            isArray ? "" : " of 1",
                            "Declare " + declaration(values)));
        }
        return isArray ? array(values) : element(values, 0);
    }

    /** Null, if the column allows it. */
    Object missing() throws MisfitException {
        if (!type.isNullable()) {
            throw new MisfitException(
                    String.format(
                            "feature `%s` has no value, but the column is declared %s. Declare it without NOT"
                                    + " NULL, to get NULL here.",
                            name, type.asSummaryString()));
        }
        return null;
    }

    private static String declaration(FeatureValues values) {
        boolean isList = values.count() > 1;
        switch (values.kind()) {
            case BYTES:
                return isList ? "ARRAY<BYTES> or ARRAY<STRING>." : "BYTES or STRING.";
            case FLOATS:
                return isList ? "ARRAY<FLOAT>." : "FLOAT.";
            default:
                return isList ? "ARRAY<BIGINT>." : "BIGINT.";
        }
    }

    private Object element(FeatureValues values, int index) throws MisfitException {
        switch (root) {
            case BOOLEAN:
                return bool(values.integer(index));
            case TINYINT:
                return (byte) within(values.integer(index), Byte.MIN_VALUE, Byte.MAX_VALUE);
            case SMALLINT:
                return (short) within(values.integer(index), Short.MIN_VALUE, Short.MAX_VALUE);
            case INTEGER:
                return (int) within(values.integer(index), Integer.MIN_VALUE, Integer.MAX_VALUE);
            case BIGINT:
                return values.integer(index);
            case FLOAT:
                return values.number(index);
            case DOUBLE:
                return (double) values.number(index);
            case CHAR:
            case VARCHAR:
                return text(values.copyOfBytes(index));
            default:
                return bytes(values.copyOfBytes(index));
        }
    }

    private ArrayData array(FeatureValues values) throws MisfitException {
        if (root == LogicalTypeRoot.BIGINT) {
            return new GenericArrayData(values.integers());
        }
        if (root == LogicalTypeRoot.FLOAT) {
            return new GenericArrayData(values.floats());
        }
        Object[] elements = new Object[values.count()];
        for (int i = 0; i < elements.length; i++) {
            elements[i] = element(values, i);
        }
        return new GenericArrayData(elements);
    }

    private boolean bool(long value) throws MisfitException {
        if (value != 0 && value != 1) {
            throw misfit(value + ", which is neither 0 nor 1", "Declare BIGINT.");
        }
        return value == 1;
    }

    private long within(long value, long least, long most) throws MisfitException {
        if (value < least || value > most) {
            throw misfit(String.format("%d, outside %d to %d", value, least, most), "Declare BIGINT.");
        }
        return value;
    }

    private StringData text(byte[] utf8) throws MisfitException {
        if (!isAscii(utf8)) {
            requireUtf8(utf8);
        }
        BinaryStringData text = BinaryStringData.fromBytes(utf8);
        if (utf8.length > maxLength && text.numChars() > maxLength) {
            throw misfit("a text of " + text.numChars() + " characters", "Declare STRING.");
        }
        return text;
    }

    private byte[] bytes(byte[] value) throws MisfitException {
        if (value.length > maxLength || root == LogicalTypeRoot.BINARY && value.length != maxLength) {
            throw misfit("a value of " + value.length + " bytes", "Declare BYTES.");
        }
        return value;
    }

    private void requireUtf8(byte[] bytes) throws MisfitException {
        try {
            StandardCharsets.UTF_8.newDecoder().decode(ByteBuffer.wrap(bytes));
        } catch (CharacterCodingException e) {
            throw misfit("bytes that are no UTF-8 text", "Declare BYTES.");
        }
    }

    private static boolean isAscii(byte[] bytes) {
        for (byte each : bytes) {
            if (each < 0) {
                return false;
            }
        }
        return true;
    }

    private MisfitException misfit(String found, String advice) {
        return new MisfitException(
                String.format(
                        "feature `%s` holds %s, but the column is declared %s. %s",
                        name, found, type.asSummaryString(), advice));
    }
}
