package org.headrace.exchange;

/** Kinds of frames; the numbers are those of docs/exchange.md section 3. */
enum FrameType {
    HELLO(1),
    OPEN(2),
    MAPPED(3),
    BATCH(4),
    OVERSIZE(5),
    CREDIT(6),
    OVERSIZE_CREDIT(7),
    WATERMARK(8),
    BARRIER(9),
    BARRIER_ACK(10),
    END(11),
    IDLE(12),
    STATE_CREDIT(13),
    ABORT(14),
    DECLINE(15),
    COMPLETE(16);

    private final int code;

    FrameType(int code) {
        this.code = code;
    }

    int code() {
        return code;
    }

    /** The type with this number on the wire. */
    static FrameType of(int code) {
        for (FrameType type : values()) {
            if (type.code == code) {
                return type;
            }
        }
        throw new MalformedMessageException("The process sent a frame of unknown type " + code);
    }
}
