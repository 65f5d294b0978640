package org.headrace.tfrecord;

/**
 * Reads protobuf's wire format from a range of a byte array.
 *
 * <p>Not safe for several threads. Source: https://protobuf.dev/programming-guides/encoding/.
 */
final class WireReader {

    static final int VARINT = 0;
    static final int FIXED64 = 1;
    static final int LENGTH_DELIMITED = 2;
    static final int FIXED32 = 5;

    private byte[] bytes;
    private int at;
    private int end;

    void reset(byte[] source, int start, int length) {
        bytes = source;
        at = start;
        end = start + length;
    }

    byte[] bytes() {
        return bytes;
    }

    int at() {
        return at;
    }

    int end() {
        return end;
    }

    boolean hasMore() {
        return at < end;
    }

    /** Number of the field and wire type in one, as {@link #field} and {@link #wireType} tell them. */
    int tag() throws WireFormatException {
        long tag = varint();
        if (tag >>> 32 != 0 || field((int) tag) == 0) {
            throw new WireFormatException("no field can have the tag " + Long.toUnsignedString(tag));
        }
        return (int) tag;
    }

    static int field(int tag) {
        return tag >>> 3;
    }

    static int wireType(int tag) {
        return tag & 7;
    }

    long varint() throws WireFormatException {
        long value = 0;
        for (int shift = 0; shift < Long.SIZE; shift += 7) {
            if (at == end) {
                throw endsInside("a varint");
            }
            byte next = bytes[at++];
            value |= (long) (next & 0x7f) << shift;
            if (next >= 0) {
                return value;
            }
        }
        throw new WireFormatException("a varint has more than ten bytes");
    }

    float fixed32() throws WireFormatException {
        if (end - at < Float.BYTES) {
            throw endsInside("a float");
        }
        float value = LittleEndian.getFloat(bytes, at);
        at += Float.BYTES;
        return value;
    }

    /** The length of what follows, which is within the range. */
    int length() throws WireFormatException {
        long length = varint();
        if (length < 0 || length > end - at) {
            throw new WireFormatException(
                    String.format("a field of %s bytes has only %d", Long.toUnsignedString(length), end - at));
        }
        return (int) length;
    }

    /** Narrows the range to the length-delimited field that begins here; {@link #leave} takes what it returns. */
    int enter() throws WireFormatException {
        int length = length();
        int outer = end;
        end = at + length;
        return outer;
    }

    void leave(int outer) {
        at = end;
        end = outer;
    }

    /** Skips bytes that {@link #length} has found to be there. */
    void skipBytes(int length) {
        at += length;
    }

    /** Skips the field with this tag. */
    void skip(int tag) throws WireFormatException {
        switch (wireType(tag)) {
            case VARINT:
                varint();
                break;
            case FIXED64:
                skipFixed(Long.BYTES);
                break;
            case LENGTH_DELIMITED:
                skipBytes(length());
                break;
            case FIXED32:
                skipFixed(Integer.BYTES);
                break;
            default:
                throw new WireFormatException(
                        String.format("field %d has the wire type %d", field(tag), wireType(tag)));
        }
    }

    private void skipFixed(int length) throws WireFormatException {
        if (end - at < length) {
            throw endsInside("a number");
        }
        at += length;
    }

    private static WireFormatException endsInside(String what) {
        return new WireFormatException("it ends inside " + what);
    }
}
