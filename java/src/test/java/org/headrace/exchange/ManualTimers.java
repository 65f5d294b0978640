package org.headrace.exchange;

import org.apache.flink.api.common.operators.ProcessingTimeService;

import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.ScheduledFuture;

/** Processing time that a test moves; callbacks run inside {@link #advance}. */
final class ManualTimers implements ProcessingTimeService {

    private final TreeMap<Long, ProcessingTimeCallback> timers = new TreeMap<>();
    private long nowMs = 1_000_000;

    @Override
    public long getCurrentProcessingTime() {
        return nowMs;
    }

    @Override
    public ScheduledFuture<?> registerTimer(long timestamp, ProcessingTimeCallback callback) {
        long free = timestamp;
        while (timers.containsKey(free)) {
            free++;
        }
        timers.put(free, callback);
        return null;
    }

    int pending() {
        return timers.size();
    }

    void advance(long ms) throws Exception {
        nowMs += ms;
        while (!timers.isEmpty() && timers.firstKey() <= nowMs) {
            Map.Entry<Long, ProcessingTimeCallback> due = timers.pollFirstEntry();
            due.getValue().onProcessingTime(due.getKey());
        }
    }
}
