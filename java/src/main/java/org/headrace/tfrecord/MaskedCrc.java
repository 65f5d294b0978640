package org.headrace.tfrecord;

import java.util.zip.CRC32C;

/**
 * The checksum of TFRecord files: CRC-32C, rotated and shifted.
 *
 * <p>Source: TensorFlow's tsl/lib/hash/crc32c.h, function Mask. Not safe for several threads.
 */
final class MaskedCrc {

    private static final int DELTA = 0xa282ead8;

    private final CRC32C crc = new CRC32C();

    int of(byte[] bytes, int start, int length) {
        crc.reset();
        crc.update(bytes, start, length);
        return Integer.rotateRight((int) crc.getValue(), 15) + DELTA;
    }
}
