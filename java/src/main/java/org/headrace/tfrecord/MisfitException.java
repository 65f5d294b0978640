package org.headrace.tfrecord;

/** The values of a feature do not fit the declared column; the text names both. */
final class MisfitException extends Exception {

    private static final long serialVersionUID = 1L;

    MisfitException(String text) {
        super(text);
    }
}
