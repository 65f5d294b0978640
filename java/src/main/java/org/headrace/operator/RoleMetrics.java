package org.headrace.operator;

import org.apache.flink.metrics.Counter;
import org.apache.flink.metrics.Gauge;
import org.apache.flink.metrics.MetricGroup;

import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.function.LongSupplier;

/**
 * Flink metrics of one role subtask, in the group {@code headrace} of its operator. Written on the
 * task thread, read by reporters.
 */
final class RoleMetrics {

    private final MetricGroup group;
    private final Counter rowsIn;
    private final Counter rowsOut;
    private final Counter rowsDiscarded;
    private final MetricGroup reports;
    private final Map<String, Double> reported = new ConcurrentHashMap<>();

    RoleMetrics(MetricGroup operatorGroup) {
        group = operatorGroup.addGroup("headrace");
        rowsIn = group.counter("rows_in");
        rowsOut = group.counter("rows_out");
        rowsDiscarded = group.counter("rows_discarded");
        reports = group.addGroup("report");
    }

    /** Rows handed to the process. */
    Counter rowsIn() {
        return rowsIn;
    }

    /** Rows that the process has emitted. */
    Counter rowsOut() {
        return rowsOut;
    }

    /** Rows that came after the process had ended its part. */
    Counter rowsDiscarded() {
        return rowsDiscarded;
    }

    /** Shows how many bytes went through the queue; the suppliers are called by reporters. */
    void addBytes(LongSupplier in, LongSupplier out) {
        group.<Long, Gauge<Long>>gauge("bytes_in", in::getAsLong);
        group.<Long, Gauge<Long>>gauge("bytes_out", out::getAsLong);
    }

    /** Shows the latest value of a key of {@code ctx.report} as a gauge {@code report.<key>}. */
    void report(String name, double value) {
        if (reported.put(name, value) == null) {
            reports.<Double, Gauge<Double>>gauge(name, () -> reported.get(name));
        }
    }
}
