package org.headrace.exchange;

import java.util.ArrayDeque;
import java.util.Deque;

/**
 * Frames that wait for a connection, or for room in its socket.
 *
 * <p>Bounded by the protocol: batches and credits by the slots, watermarks because one that still
 * waits as the last frame is replaced by the next, barriers by Flink's concurrent checkpoints.
 *
 * <p>Thread model: any thread; never blocks.
 */
final class FrameOutbox {

    private final Deque<Frame> waiting = new ArrayDeque<>();

    synchronized void add(Frame frame) {
        Frame last = waiting.peekLast();
        boolean replacesLast =
                last != null
                        && last.type() == FrameType.WATERMARK
                        && frame.type() == FrameType.WATERMARK;
        if (replacesLast) {
            waiting.removeLast();
        }
        waiting.addLast(frame);
    }

    /** Takes the next frame, or returns null. */
    synchronized Frame poll() {
        return waiting.pollFirst();
    }

    synchronized int size() {
        return waiting.size();
    }
}
