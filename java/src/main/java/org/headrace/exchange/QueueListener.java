package org.headrace.exchange;

import org.apache.flink.annotation.Internal;
import org.apache.flink.table.data.RowData;

/**
 * What the process sends, in its order.
 *
 * <p>Thread model: called on the task thread only, from mails and so also inside the waits of {@link
 * MemoryQueue}. An exception fails the task. Must not call {@link MemoryQueue#write} or {@link
 * MemoryQueue#close}.
 */
@Internal
public interface QueueListener {

    /** A process has connected and holds both segments. */
    default void onConnected(int attempt, long pid) {}

    /** A row, which the listener may keep; {@code timestamp} only counts if it has one. */
    void onRow(RowData row, boolean hasTimestamp, long timestamp) throws Exception;

    /** A watermark. */
    void onWatermark(long timestamp) throws Exception;

    /**
     * The process has handled everything before this barrier and sent all its output.
     *
     * @param state of the process at this place, which the listener closes, and gives back with {@link
     *     MemoryQueue#giveBack}; null if it has none to keep
     */
    void onBarrierAck(long checkpointId, StateFile state) throws Exception;

    /** The process will not acknowledge this barrier, and goes on behind it. */
    void onBarrierDeclined(long checkpointId) throws Exception;

    /** The process has sent END: no more rows, watermarks or acknowledgements will come. */
    void onOutputEnd() throws Exception;

    /**
     * The connection broke before END: the process died, or broke the protocol.
     *
     * <p>The queue waits for what the listener does: fail the task with the real cause once it is
     * known, or (role without input) have the process started again. A write that finds no slot free
     * fails by itself {@link MemoryQueue#LOST_GRACE_MS} after the loss.
     */
    void onConnectionLost(Throwable cause) throws Exception;
}
