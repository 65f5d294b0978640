package org.headrace.am;

import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.JsonNode;

import org.headrace.plan.PlannedRole;

import java.util.HashMap;
import java.util.Map;
import java.util.Set;

/**
 * How far the nodes are that a drain waits for: while it changes, they get on. Those with rows, until their
 * functions have returned: what others do meanwhile, an evaluator for example, is no sign of them.
 *
 * @param nodes what the status says of each, by its name
 * @param isStarting whether the entry function of one of them has not been called yet
 */
record DrainProgress(Map<String, JsonNode> nodes, boolean isStarting) {

    private static final Set<String> NOT_ENDED = Set.of("registered", "running");

    /** Of the status' field {@code nodes}: docs/lifecycle.md, section 4. */
    static DrainProgress of(JsonNode nodes, Map<String, PlannedRole> plannedRoles) {
        Map<String, JsonNode> all = new HashMap<>();
        Map<String, JsonNode> fed = new HashMap<>();
        boolean isOver = true;
        // With none of them: a master that was started again, to which they have not come yet.
        boolean isStarting = plannedRoles.values().stream().anyMatch(PlannedRole::hasInput);
        for (Map.Entry<String, JsonNode> each : nodes.properties()) {
            all.put(each.getKey(), each.getValue());
            if (!hasInput(each.getKey(), plannedRoles)) {
                continue;
            }
            if (fed.isEmpty()) {
                isStarting = false;
            }
            fed.put(each.getKey(), each.getValue());
            if (NOT_ENDED.contains(each.getValue().path("state").asText())) {
                isOver = false;
                isStarting |= each.getValue().path("progress").asLong(0) == 0;
            }
        }
        return new DrainProgress(isOver ? all : fed, isStarting);
    }

    private static boolean hasInput(String node, Map<String, PlannedRole> plannedRoles) {
        int end = node.lastIndexOf('-');
        PlannedRole role = end < 0 ? null : plannedRoles.get(node.substring(0, end));
        return role != null && role.hasInput();
    }
}
