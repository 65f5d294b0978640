package org.headrace.tfrecord;

/**
 * The three kinds of lists that a feature of a tf.Example can hold.
 *
 * <p>Source: tensorflow/core/example/feature.proto, message Feature.
 */
enum FeatureKind {
    BYTES(1, "a bytes_list"),
    FLOATS(2, "a float_list"),
    INTEGERS(3, "an int64_list");

    private final int field;
    private final String text;

    FeatureKind(int field, String text) {
        this.field = field;
        this.text = text;
    }

    /** Number of the field in the message Feature. */
    int field() {
        return field;
    }

    /** The kind of a field of the message Feature, or null for a field that is none. */
    static FeatureKind ofField(int field) {
        switch (field) {
            case 1:
                return BYTES;
            case 2:
                return FLOATS;
            case 3:
                return INTEGERS;
            default:
                return null;
        }
    }

    /** The name that TensorFlow gives it, with its article. */
    @Override
    public String toString() {
        return text;
    }
}
