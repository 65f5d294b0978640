package org.headrace.tfrecord;

import java.util.Arrays;

/**
 * The values of one feature, as they were read; used again for the next one.
 *
 * <p>Packed and unpacked numbers are read alike, as protobuf asks of a reader. What is said twice is joined,
 * and of several kinds the last one counts: protobuf's rules for repeated fields and for oneof.
 */
final class FeatureValues {

    private static final int VALUES_FIELD = 1; // of BytesList, FloatList and Int64List

    private FeatureKind kind;
    private int count;
    private long[] integers = new long[16];
    private float[] floats = new float[16];
    private int[] starts = new int[16];
    private int[] lengths = new int[16];
    private byte[] bytes;

    /** Takes the values of the message Feature that is the whole range of the reader. */
    void read(WireReader in) throws WireFormatException {
        clear();
        bytes = in.bytes();
        while (in.hasMore()) {
            int tag = in.tag();
            FeatureKind found = FeatureKind.ofField(WireReader.field(tag));
            if (found == null) {
                in.skip(tag);
                continue;
            }
            requireDelimited(tag, found);
            if (found != kind) {
                kind = found;
                count = 0;
            }
            int outer = in.enter();
            readList(in);
            in.leave(outer);
        }
    }

    void clear() {
        kind = null;
        count = 0;
    }

    /** Null if the feature has none, which is as if it were not there. */
    FeatureKind kind() {
        return kind;
    }

    int count() {
        return count;
    }

    long integer(int index) {
        return integers[index];
    }

    float number(int index) {
        return floats[index];
    }

    long[] integers() {
        return Arrays.copyOf(integers, count);
    }

    float[] floats() {
        return Arrays.copyOf(floats, count);
    }

    byte[] copyOfBytes(int index) {
        return Arrays.copyOfRange(bytes, starts[index], starts[index] + lengths[index]);
    }

    private void readList(WireReader in) throws WireFormatException {
        while (in.hasMore()) {
            int tag = in.tag();
            if (WireReader.field(tag) != VALUES_FIELD) {
                in.skip(tag);
                continue;
            }
            switch (kind) {
                case BYTES:
                    requireDelimited(tag, kind);
                    int length = in.length();
                    addBytes(in.at(), length);
                    in.skipBytes(length);
                    break;
                case FLOATS:
                    readFloats(in, tag);
                    break;
                default:
                    readIntegers(in, tag);
            }
        }
    }

    private void readFloats(WireReader in, int tag) throws WireFormatException {
        if (WireReader.wireType(tag) == WireReader.FIXED32) {
            addFloat(in.fixed32());
            return;
        }
        requireDelimited(tag, kind);
        int outer = in.enter();
        reserveFloats((in.end() - in.at()) / Float.BYTES);
        while (in.hasMore()) {
            addFloat(in.fixed32());
        }
        in.leave(outer);
    }

    private void readIntegers(WireReader in, int tag) throws WireFormatException {
        if (WireReader.wireType(tag) == WireReader.VARINT) {
            addInteger(in.varint());
            return;
        }
        requireDelimited(tag, kind);
        int outer = in.enter();
        while (in.hasMore()) {
            addInteger(in.varint());
        }
        in.leave(outer);
    }

    private static void requireDelimited(int tag, FeatureKind kind) throws WireFormatException {
        if (WireReader.wireType(tag) != WireReader.LENGTH_DELIMITED) {
            throw new WireFormatException(
                    String.format("%s has the wire type %d", kind, WireReader.wireType(tag)));
        }
    }

    private void reserveFloats(int more) {
        if (count + more > floats.length) {
            floats = Arrays.copyOf(floats, Math.max(count + more, 2 * floats.length));
        }
    }

    private void addFloat(float value) {
        reserveFloats(1);
        floats[count++] = value;
    }

    private void addInteger(long value) {
        if (count == integers.length) {
            integers = Arrays.copyOf(integers, 2 * count);
        }
        integers[count++] = value;
    }

    private void addBytes(int start, int length) {
        if (count == starts.length) {
            starts = Arrays.copyOf(starts, 2 * count);
            lengths = Arrays.copyOf(lengths, 2 * count);
        }
        starts[count] = start;
        lengths[count++] = length;
    }
}
