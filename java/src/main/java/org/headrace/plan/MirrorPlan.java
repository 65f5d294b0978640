package org.headrace.plan;

import org.apache.flink.annotation.Internal;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.JsonNode;

import java.io.Serializable;
import java.time.Duration;

/**
 * A file or directory that every process of a role finds a copy of on its host.
 *
 * @param uri where it is, on any file system that Flink reads
 * @param every time between two looks for changes; zero: it is copied once
 */
@Internal
public record MirrorPlan(String uri, Duration every) implements Serializable {

    /** Reads {@code uri, every_ms}; null if there is no such object. */
    static MirrorPlan parse(JsonNode json) {
        if (!json.isObject()) {
            return null;
        }
        return new MirrorPlan(json.path("uri").asText(), Duration.ofMillis(json.path("every_ms").asLong(0)));
    }

    public boolean isFollowed() {
        return !every.isZero();
    }
}
