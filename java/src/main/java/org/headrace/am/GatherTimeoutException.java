package org.headrace.am;

import org.apache.flink.annotation.Internal;

import org.headrace.plan.PlannedRole;
import org.headrace.plan.Timeouts;

import java.time.Duration;
import java.util.Map;
import java.util.stream.Collectors;

/** The nodes of a cluster had not all registered in time. */
@Internal
public final class GatherTimeoutException extends Exception {

    private static final long serialVersionUID = 1L;

    GatherTimeoutException(
            String cluster,
            Duration limit,
            Map<String, PlannedRole> plannedRoles,
            String registered,
            String offer,
            boolean hasRun,
            boolean isRestartable) {
        super(
                String.format(
                        "The nodes of cluster '%s' had not all registered%s after %s (limit set by"
                                + " `timeouts.gather_timeout_s`). %s Needed: %s task slots, the largest"
                                + " parallelism of a role (%s), or more if another operator of the job has"
                                + " a larger one.%s%s",
                        cluster,
                        hasRun ? " again" : "",
                        Timeouts.text(limit),
                        registered,
                        plannedRoles.values().stream().mapToInt(PlannedRole::parallelism).max().orElse(0),
                        plannedRoles.entrySet().stream()
                                .map(each -> each.getKey() + ": " + each.getValue().parallelism())
                                .collect(Collectors.joining(", ")),
                        offer.isEmpty() ? "" : " Offered: " + offer + ".",
                        isRestartable ? " The job's restart strategy decides whether it is tried once more." : ""));
    }
}
