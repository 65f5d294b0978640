package org.headrace.plan;

import org.apache.flink.annotation.Internal;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.JsonNode;

import java.io.Serializable;
import java.time.Duration;

/**
 * The limits of {@code TimeoutConfig} that the JVM keeps.
 *
 * @param gather from the job's start until every node has registered
 * @param processStart from the start of a process until it has connected
 * @param stopGrace from asking a process to end until it is killed
 * @param stop for the whole orderly end of a role
 * @param checkpointHold how long a checkpoint waits for the process
 */
@Internal
public record Timeouts(
        Duration gather, Duration processStart, Duration stopGrace, Duration stop, Duration checkpointHold)
        implements Serializable {

    /** Reads the fields of {@code TimeoutConfig}. */
    public static Timeouts parse(JsonNode json) {
        return new Timeouts(
                seconds(json, "gather_timeout_s"),
                seconds(json, "process_start_timeout_s"),
                seconds(json, "stop_grace_s"),
                seconds(json, "stop_timeout_s"),
                seconds(json, "checkpoint_hold_timeout_s"));
    }

    private static Duration seconds(JsonNode json, String name) {
        JsonNode value = json.path(name);
        if (!value.isNumber()) {
            throw new IllegalArgumentException("timeouts." + name + " is missing in the cluster's plan");
        }
        return Duration.ofMillis(Math.round(value.doubleValue() * 1_000));
    }

    /** A length for texts: in seconds, or in milliseconds where it is less than one. */
    public static String text(Duration length) {
        if (length.toMillis() < 1_000) {
            return length.toMillis() + " ms";
        }
        return String.format("%.1f s", length.toMillis() / 1_000.0);
    }
}
