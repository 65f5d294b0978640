package org.headrace.exchange;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.nio.file.InvalidPathException;
import java.nio.file.Path;

/** One frame: a small message on the socket; see docs/exchange.md section 3. */
record Frame(FrameType type, long value, byte[] payload) {

    static final int HEADER_BYTES = 16;
    static final int MAX_PAYLOAD_BYTES = 1 << 20;

    /** Of what the process sends: the longest is a path. Thousands of its frames may wait for the task. */
    static final int MAX_PAYLOAD_OF_PROCESS_BYTES = 1 << 13;

    static final int BATCH_PAYLOAD_BYTES = 8;
    static final int STATE_PAYLOAD_BYTES = 12; // a path follows

    private static final byte[] EMPTY = new byte[0];

    static Frame of(FrameType type, long value) {
        return new Frame(type, value, EMPTY);
    }

    static Frame batch(int slot, int messageBytes, int rows) {
        ByteBuffer payload = littleEndian(ByteBuffer.allocate(BATCH_PAYLOAD_BYTES));
        return new Frame(
                FrameType.BATCH, slot, payload.putInt(messageBytes).putInt(rows).array());
    }

    /** The acknowledgement of a barrier with the state of the process, in an open file of it. */
    static Frame barrierAck(long checkpointId, StateOffer state) {
        byte[] path = state.path().toString().getBytes(StandardCharsets.UTF_8);
        ByteBuffer payload = littleEndian(ByteBuffer.allocate(STATE_PAYLOAD_BYTES + path.length));
        payload.putInt(state.number()).putLong(state.bytes()).put(path);
        return new Frame(FrameType.BARRIER_ACK, checkpointId, payload.array());
    }

    static Frame text(FrameType type, long value, String payload) {
        return new Frame(type, value, payload.getBytes(StandardCharsets.UTF_8));
    }

    String text() {
        return new String(payload, StandardCharsets.UTF_8);
    }

    /** The state that a BARRIER_ACK offers; null if it comes without. */
    StateOffer state() {
        if (payload.length == 0) {
            return null;
        }
        MessageMetadata.require(
                payload.length > STATE_PAYLOAD_BYTES, "an acknowledgement with %s bytes of payload", payload.length);
        ByteBuffer bytes = littleEndian(ByteBuffer.wrap(payload));
        int number = bytes.getInt();
        long stateBytes = bytes.getLong();
        MessageMetadata.require(number >= 0 && stateBytes > 0, "state file %s of %s bytes", number, stateBytes);
        return new StateOffer(number, stateBytes, path(StandardCharsets.UTF_8.decode(bytes).toString()));
    }

    /** The file of an OVERSIZE. */
    Path path() {
        return path(text());
    }

    private static Path path(String text) {
        try {
            return Path.of(text);
        } catch (InvalidPathException e) {
            throw new MalformedMessageException("The process named a file by what is no path", e);
        }
    }

    /** Bytes of the message of a BATCH, at least 0. */
    int messageBytes() {
        return unsigned(0);
    }

    /** Rows of a BATCH, at least 0. */
    int rows() {
        return unsigned(Integer.BYTES);
    }

    private int unsigned(int at) {
        if (payload.length != BATCH_PAYLOAD_BYTES) {
            throw new MalformedMessageException(
                    "The process sent a BATCH frame with " + payload.length + " bytes of payload");
        }
        int value = littleEndian(ByteBuffer.wrap(payload)).getInt(at);
        if (value < 0) {
            throw new MalformedMessageException(
                    "The process sent a BATCH frame with a size over 2 GiB");
        }
        return value;
    }

    /** The bytes on the wire, ready to be written. */
    ByteBuffer encode() {
        ByteBuffer bytes = littleEndian(ByteBuffer.allocate(HEADER_BYTES + payload.length));
        // The type is below 256: as a little-endian int it is "u8 type, u8[3] zero".
        bytes.putInt(type.code()).putInt(payload.length).putLong(value).put(payload);
        return bytes.flip();
    }

    /**
     * Takes the next whole frame out of {@code bytes}, or returns null if there is none yet.
     *
     * @throws MalformedMessageException if it is of no known type, or has more than {@code maxPayloadBytes}
     */
    static Frame decode(ByteBuffer bytes, int maxPayloadBytes) {
        if (bytes.remaining() < HEADER_BYTES) {
            return null;
        }
        int start = bytes.position();
        int code = bytes.getInt(start); // the three bytes behind the type are zero
        int payloadBytes = bytes.getInt(start + 4);
        if (payloadBytes < 0 || payloadBytes > maxPayloadBytes) {
            throw new MalformedMessageException(
                    String.format(
                            "The process sent a frame with %s bytes of payload, more than %d",
                            Integer.toUnsignedString(payloadBytes), maxPayloadBytes));
        }
        FrameType type = FrameType.of(code);
        if (bytes.remaining() < HEADER_BYTES + payloadBytes) {
            return null;
        }
        long value = bytes.getLong(start + 8);
        byte[] payload = payloadBytes == 0 ? EMPTY : new byte[payloadBytes];
        bytes.position(start + HEADER_BYTES);
        bytes.get(payload);
        return new Frame(type, value, payload);
    }

    static ByteBuffer littleEndian(ByteBuffer bytes) {
        return bytes.order(ByteOrder.LITTLE_ENDIAN);
    }
}
