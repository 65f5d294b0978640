package org.headrace.operator;

import org.apache.flink.metrics.Counter;
import org.apache.flink.streaming.api.operators.Output;
import org.apache.flink.streaming.api.watermark.Watermark;
import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;
import org.apache.flink.streaming.runtime.watermarkstatus.WatermarkStatus;
import org.apache.flink.table.data.RowData;

/** The operator's way downstream. Task thread only; blocks where Flink's output blocks. */
final class RoleOutput {

    private final Output<StreamRecord<RowData>> output;
    private final Counter rows;
    private final StreamRecord<RowData> record = new StreamRecord<>(null);
    private long lastWatermark = Long.MIN_VALUE;
    private boolean isIdle;

    RoleOutput(Output<StreamRecord<RowData>> output, Counter rows) {
        this.output = output;
        this.rows = rows;
    }

    void emit(RowData row, boolean hasTimestamp, long timestamp) {
        rows.inc();
        record.replace(row);
        if (hasTimestamp) {
            record.setTimestamp(timestamp);
        } else {
            record.eraseTimestamp();
        }
        output.collect(record);
    }

    /** Emits a watermark, unless it would go backwards. */
    void emitWatermark(long timestamp) {
        if (timestamp <= lastWatermark) {
            return;
        }
        lastWatermark = timestamp;
        if (isIdle) { // Flink drops watermarks of an idle stream
            output.emitWatermarkStatus(WatermarkStatus.ACTIVE);
        }
        output.emitWatermark(new Watermark(timestamp));
        if (isIdle && timestamp != Watermark.MAX_WATERMARK.getTimestamp()) {
            output.emitWatermarkStatus(WatermarkStatus.IDLE);
        }
    }

    void emitStatus(WatermarkStatus status) {
        isIdle = status.isIdle();
        output.emitWatermarkStatus(status);
    }
}
