package org.headrace.operator;

import static org.headrace.exchange.Behaviours.check;
import static org.headrace.exchange.Behaviours.checkEqual;

import org.headrace.plan.Timeouts;

import java.time.Duration;
import java.util.List;

/** What is told of a process that does not answer. */
public final class RoleQueueBehaviours {

    private static final Timeouts LIMITS =
            new Timeouts(
                    Duration.ofSeconds(120),
                    Duration.ofSeconds(60),
                    Duration.ofSeconds(1),
                    Duration.ofSeconds(2),
                    Duration.ofSeconds(30));

    private RoleQueueBehaviours() {}

    public static void aProcessThatIsBehindIsToldWithTheLimitOfTheHold() {
        String text = RoleQueue.whyLate(true, LIMITS);
        checkEqual(
                text,
                "had not handled the rows before the barrier after 30.0 s (limit set by"
                        + " `timeouts.checkpoint_hold_timeout_s`)");
    }

    public static void aProcessThatNeverConnectedIsToldWithAllThreeLimits() {
        String text = RoleQueue.whyLate(false, LIMITS);
        check(text.startsWith("had not connected to the memory queue after 210.0 s"), text);
        for (String limit : List.of("gather", "process_start", "checkpoint_hold")) {
            check(text.contains("`timeouts." + limit + "_timeout_s`"), text);
        }
    }
}
