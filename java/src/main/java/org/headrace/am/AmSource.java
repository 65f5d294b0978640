package org.headrace.am;

import org.apache.flink.annotation.Internal;
import org.apache.flink.api.connector.source.Boundedness;
import org.apache.flink.api.connector.source.Source;
import org.apache.flink.api.connector.source.SourceEvent;
import org.apache.flink.api.connector.source.SourceReader;
import org.apache.flink.api.connector.source.SourceReaderContext;
import org.apache.flink.api.connector.source.SplitEnumerator;
import org.apache.flink.api.connector.source.SplitEnumeratorContext;
import org.apache.flink.core.io.SimpleVersionedSerializer;

import java.util.List;

/**
 * A source of parallelism 1 that emits one record, the name of its reader, and stays open until it
 * receives an {@link EndControlStream} with that name.
 *
 * <p>It is unbounded for Flink, so that asking for BATCH runtime mode is refused by Flink itself.
 */
@Internal
public final class AmSource implements Source<String, NoSplit, Integer> {

    private static final long serialVersionUID = 1L;
    private static final Integer NO_STATE = 0;

    @Override
    public Boundedness getBoundedness() {
        return Boundedness.CONTINUOUS_UNBOUNDED;
    }

    @Override
    public SourceReader<String, NoSplit> createReader(SourceReaderContext context) {
        return new AmSourceReader();
    }

    @Override
    public SplitEnumerator<NoSplit, Integer> createEnumerator(SplitEnumeratorContext<NoSplit> context) {
        return new Enumerator(context);
    }

    @Override
    public SplitEnumerator<NoSplit, Integer> restoreEnumerator(
            SplitEnumeratorContext<NoSplit> context, Integer state) {
        return new Enumerator(context);
    }

    @Override
    public SimpleVersionedSerializer<NoSplit> getSplitSerializer() {
        return new NoSplit.Serializer<>(new NoSplit());
    }

    @Override
    public SimpleVersionedSerializer<Integer> getEnumeratorCheckpointSerializer() {
        return new NoSplit.Serializer<>(NO_STATE);
    }

    /** Passes the event on. Runs in the source coordinator's thread. */
    private static final class Enumerator implements SplitEnumerator<NoSplit, Integer> {

        private final SplitEnumeratorContext<NoSplit> context;

        private Enumerator(SplitEnumeratorContext<NoSplit> context) {
            this.context = context;
        }

        @Override
        public void handleSourceEvent(int subtask, SourceEvent event) {
            if (context.registeredReaders().containsKey(subtask)) {
                context.sendEventToSourceReader(subtask, event);
            }
        }

        @Override
        public void start() {}

        @Override
        public void handleSplitRequest(int subtask, String host) {}

        @Override
        public void addSplitsBack(List<NoSplit> splits, int subtask) {}

        @Override
        public void addReader(int subtask) {}

        @Override
        public Integer snapshotState(long checkpointId) {
            return NO_STATE;
        }

        @Override
        public void close() {}
    }
}
