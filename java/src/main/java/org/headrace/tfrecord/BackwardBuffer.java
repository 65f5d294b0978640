package org.headrace.tfrecord;

/**
 * Bytes that are written from the last one to the first.
 *
 * <p>A protobuf message says its length before its content. Whoever writes the content first knows the length
 * without a second pass. Not safe for several threads.
 */
final class BackwardBuffer {

    private static final int LEAST_BYTES = 1 << 12;
    private static final int MAX_BYTES = Integer.MAX_VALUE - 8;

    private byte[] bytes = new byte[LEAST_BYTES];
    private int start = bytes.length;

    void clear() {
        start = bytes.length;
    }

    int size() {
        return bytes.length - start;
    }

    byte[] bytes() {
        return bytes;
    }

    /** Where the first byte is in {@link #bytes}. */
    int start() {
        return start;
    }

    /** Makes room for so many bytes before what is there; returns where they begin in {@link #bytes}. */
    int prepend(int count) throws TfRecordException {
        if (count > start) {
            grow((long) size() + count);
        }
        start -= count;
        return start;
    }

    void prependBytes(byte[] source) throws TfRecordException {
        int at = prepend(source.length);
        System.arraycopy(source, 0, bytes, at, source.length);
    }

    void prependVarint(long value) throws TfRecordException {
        int at = prepend(varintBytes(value));
        long rest = value;
        while ((rest & ~0x7fL) != 0) {
            bytes[at++] = (byte) (rest | 0x80);
            rest >>>= 7;
        }
        bytes[at] = (byte) rest;
    }

    /** Turns what was written since the size was {@code before} into a length-delimited field. */
    void wrap(int field, int before) throws TfRecordException {
        prependVarint(size() - before);
        prependVarint(field << 3 | WireReader.LENGTH_DELIMITED);
    }

    private static int varintBytes(long value) {
        int bits = Math.max(1, Long.SIZE - Long.numberOfLeadingZeros(value));
        return (bits + 6) / 7;
    }

    private void grow(long needed) throws TfRecordException {
        if (needed > MAX_BYTES) {
            throw TfRecordException.rowTooLarge(needed);
        }
        byte[] larger = new byte[(int) Math.min(Math.max(needed, 2L * bytes.length), MAX_BYTES)];
        int size = size();
        System.arraycopy(bytes, start, larger, larger.length - size, size);
        bytes = larger;
        start = larger.length - size;
    }
}
