package org.headrace.am;

import org.apache.flink.api.common.accumulators.Accumulator;
import org.apache.flink.api.common.accumulators.SimpleAccumulator;

/**
 * Carries the master's last status into the job's result, where the coordinator no longer answers.
 *
 * <p>Thread model: written by the task thread, read by Flink's heartbeat and at the end.
 */
final class StatusAccumulator implements SimpleAccumulator<String> {

    private static final long serialVersionUID = 1L;

    private volatile String status = "";

    @Override
    public void add(String value) {
        status = value;
    }

    @Override
    public String getLocalValue() {
        return status;
    }

    @Override
    public void resetLocal() {
        status = "";
    }

    @Override
    public void merge(Accumulator<String, String> other) {
        if (!other.getLocalValue().isEmpty()) {
            status = other.getLocalValue();
        }
    }

    @Override
    public Accumulator<String, String> clone() {
        StatusAccumulator copy = new StatusAccumulator();
        copy.status = status;
        return copy;
    }
}
