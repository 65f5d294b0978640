package org.headrace.am;

import static org.headrace.exchange.Behaviours.check;
import static org.headrace.exchange.Behaviours.checkEqual;

import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.node.MissingNode;

import org.headrace.json.Lines;
import org.headrace.plan.PlannedRole;

import java.util.Map;

/** What a drain takes for a sign that the processes get on. */
public final class DrainProgressBehaviours {

    private static final Map<String, PlannedRole> ROLES =
            Map.of("worker", new PlannedRole(2, true, true), "evaluator", new PlannedRole(1, false, false));

    private DrainProgressBehaviours() {}

    public static void batchesReportsAndEndsOfNodesWithRowsAreSigns() {
        String before = "'worker-0': {'state': 'running', 'progress': 3}, 'worker-1': {'state': 'running', 'progress': 1}";
        check(of(before).equals(of(before)), "nothing has changed");
        check(!of(before).equals(of(before.replace("3", "4"))), "a batch is no sign");
        check(!of(before).equals(of(before.replaceFirst("running", "finished"))), "an end is no sign");
    }

    public static void othersGiveNoSignWhileANodeWithRowsIsNotDone() {
        String worker = "'worker-0': {'state': 'running', 'progress': 3}, 'evaluator-0': {'state': 'running', 'progress': ";
        checkEqual(of(worker + "1}"), of(worker + "2}"));
        String done = worker.replaceFirst("running", "finished");
        check(!of(done + "1}").equals(of(done + "2}")), "the others are still waited for");
    }

    public static void aNodeHasBegunWithItsFirstSign() {
        check(of("'worker-0': {'state': 'running', 'progress': 1}, 'worker-1': {'state': 'running'}").isStarting(), "1");
        check(of("'worker-0': {'state': 'registered'}").isStarting(), "2");
        check(!of("'worker-0': {'state': 'running', 'progress': 1}").isStarting(), "3");
        check(!of("'worker-0': {'state': 'failed'}").isStarting(), "one that has ended does not start");
        check(DrainProgress.of(MissingNode.getInstance(), ROLES).isStarting(), "a new master has seen nobody");
    }

    public static void withoutRowsNobodyIsWaitedForToBegin() {
        Map<String, PlannedRole> batchMode = Map.of("worker", new PlannedRole(1, false, false));
        check(!DrainProgress.of(Lines.parse("{\"worker-0\": {\"state\": \"running\"}}"), batchMode).isStarting(), "4");
    }

    private static DrainProgress of(String nodes) {
        return DrainProgress.of(Lines.parse("{" + nodes.replace('\'', '"') + "}"), ROLES);
    }
}
