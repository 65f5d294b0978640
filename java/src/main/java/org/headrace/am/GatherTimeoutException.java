package org.headrace.am;

import org.headrace.plan.Timeouts;

import java.time.Duration;
import java.util.Collections;
import java.util.Map;
import java.util.stream.Collectors;

/** The nodes of a cluster had not all registered in time. A restart would not mend it. */
public final class GatherTimeoutException extends Exception {

    private static final long serialVersionUID = 1L;

    GatherTimeoutException(
            String cluster, Duration limit, Map<String, Integer> parallelismByRole, String registered, String offer) {
        super(
                String.format(
                        "The nodes of cluster '%s' had not all registered after %s (limit set by"
                                + " `timeouts.gather_timeout_s`). %s Needed: %s task slots, the largest"
                                + " parallelism of a role (%s).%s",
                        cluster,
                        Timeouts.text(limit),
                        registered,
                        Collections.max(parallelismByRole.values()),
                        parallelismByRole.entrySet().stream()
                                .map(each -> each.getKey() + ": " + each.getValue())
                                .collect(Collectors.joining(", ")),
                        offer.isEmpty() ? "" : " " + offer));
    }
}
