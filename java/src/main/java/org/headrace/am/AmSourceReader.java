package org.headrace.am;

import org.apache.flink.api.connector.source.ReaderOutput;
import org.apache.flink.api.connector.source.SourceEvent;
import org.apache.flink.api.connector.source.SourceReader;
import org.apache.flink.core.io.InputStatus;

import java.util.List;
import java.util.UUID;
import java.util.concurrent.CompletableFuture;

/** Never blocks. All methods run on the task thread. */
final class AmSourceReader implements SourceReader<String, NoSplit> {

    /** Names this reader: a restarted one has another, so a late event cannot end it. */
    private final String execution = UUID.randomUUID().toString();

    private final CompletableFuture<Void> end = new CompletableFuture<>();
    private boolean isNameEmitted;

    @Override
    public void start() {}

    @Override
    public InputStatus pollNext(ReaderOutput<String> output) {
        if (!isNameEmitted) {
            isNameEmitted = true;
            output.collect(execution);
        }
        return end.isDone() ? InputStatus.END_OF_INPUT : InputStatus.NOTHING_AVAILABLE;
    }

    @Override
    public CompletableFuture<Void> isAvailable() {
        return isNameEmitted ? end : CompletableFuture.completedFuture(null);
    }

    @Override
    public void handleSourceEvents(SourceEvent event) {
        if (event instanceof EndControlStream && ((EndControlStream) event).execution().equals(execution)) {
            end.complete(null);
        }
    }

    @Override
    public List<NoSplit> snapshotState(long checkpointId) {
        return List.of();
    }

    @Override
    public void addSplits(List<NoSplit> splits) {}

    @Override
    public void notifyNoMoreSplits() {}

    @Override
    public void close() {}
}
