package org.headrace.am;

import org.apache.flink.api.connector.source.SourceSplit;
import org.apache.flink.core.io.SimpleVersionedSerializer;

/** The split of a source without splits; none is ever made. */
final class NoSplit implements SourceSplit {

    @Override
    public String splitId() {
        return "none";
    }

    /** Writes nothing, for the split and for the enumerator's empty state. */
    static final class Serializer<T> implements SimpleVersionedSerializer<T> {

        private final T value;

        Serializer(T value) {
            this.value = value;
        }

        @Override
        public int getVersion() {
            return 1;
        }

        @Override
        public byte[] serialize(T ignored) {
            return new byte[0];
        }

        @Override
        public T deserialize(int version, byte[] bytes) {
            return value;
        }
    }
}
