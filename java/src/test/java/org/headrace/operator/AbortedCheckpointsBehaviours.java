package org.headrace.operator;

import static org.headrace.exchange.Behaviours.check;
import static org.headrace.exchange.Behaviours.checkEqual;

/** Which aborted checkpoints are remembered. */
public final class AbortedCheckpointsBehaviours {

    private AbortedCheckpointsBehaviours() {}

    public static void theLatestAreKnownHoweverManyThereWere() {
        AbortedCheckpoints aborted = new AbortedCheckpoints();
        long last = 1_000_000;
        for (long id = 1; id <= last; id++) {
            aborted.add(id);
        }
        checkEqual(aborted.size(), AbortedCheckpoints.MOST);
        long oldest = last - AbortedCheckpoints.MOST + 1;
        for (long id = oldest; id <= last; id++) {
            check(aborted.contains(id), id + " is not known");
        }
        check(!aborted.contains(oldest - 1), "one more is known");
    }

    public static void oneThatIsToldTwiceCountsOnce() {
        AbortedCheckpoints aborted = new AbortedCheckpoints();
        aborted.add(7);
        for (int time = 0; time < 2 * AbortedCheckpoints.MOST; time++) {
            aborted.add(8);
        }
        check(aborted.contains(7), "the other one is forgotten");
        check(aborted.remove(8), "it is not there");
        check(!aborted.remove(8), "it is there twice");
    }

    public static void olderOnesAreForgotten() {
        AbortedCheckpoints aborted = new AbortedCheckpoints();
        aborted.add(7);
        aborted.add(9);
        aborted.add(8);
        aborted.forgetBefore(8);
        check(!aborted.contains(7), "the older one is known");
        check(aborted.contains(8), "the one itself is forgotten");
        check(aborted.contains(9), "a later one is forgotten");
    }
}
