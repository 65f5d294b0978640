package org.headrace.tfrecord;

/** Bytes are not the protobuf message that they should be. */
final class WireFormatException extends Exception {

    private static final long serialVersionUID = 1L;

    WireFormatException(String text) {
        super(text);
    }
}
