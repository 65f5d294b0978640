package org.headrace.operator;

import org.apache.flink.streaming.runtime.watermarkstatus.WatermarkStatus;

/**
 * The time of the data input that is on its way through the process: watermarks, and idleness, for which a marker
 * goes behind the rows. A process may end without having read all of it; then it passes by itself, since others
 * downstream would wait for it.
 *
 * <p>Thread model: task thread only.
 */
final class TimeInProcess {

    private final RoleOutput output;
    private long latestWatermark = Long.MIN_VALUE;
    private WatermarkStatus heldStatus; // null: none is held
    private long marker; // of the latest; below zero, where no checkpoint id is

    TimeInProcess(RoleOutput output) {
        this.output = output;
    }

    /** A watermark goes through the process, or would if that were not lost. */
    void onWatermark(long timestamp) {
        latestWatermark = timestamp;
    }

    /** Holds a status until its marker is answered; the marker is returned. */
    long hold(WatermarkStatus status) {
        heldStatus = status;
        marker--;
        return marker;
    }

    /** Emits a status that need not wait, in place of one that is held. */
    void pass(WatermarkStatus status) {
        heldStatus = null;
        output.emitStatus(status);
    }

    /** The process has answered a marker, or the barrier of a checkpoint. */
    void onAnswer(long id) {
        if (id == marker && heldStatus != null) {
            pass(heldStatus);
        }
    }

    /** No more rows come out of the process: what is held back passes. Idempotent. */
    void release() {
        output.emitWatermark(latestWatermark);
        if (heldStatus != null) {
            pass(heldStatus);
        }
    }
}
