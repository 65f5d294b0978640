package org.headrace.am;

import static org.headrace.exchange.Behaviours.check;
import static org.headrace.exchange.Behaviours.checkEqual;

import org.apache.flink.configuration.Configuration;
import org.apache.flink.runtime.operators.coordination.CoordinatorStore;
import org.apache.flink.runtime.operators.coordination.CoordinatorStoreImpl;
import org.apache.flink.runtime.operators.coordination.OperatorCoordinator;

import org.headrace.plan.ClusterPlan;
import org.headrace.plan.PlannedRole;

import java.lang.reflect.Proxy;
import java.util.Map;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;

/** What keeps the control stream open, and until when; with Flink's own store of coordinators. */
public final class AmCoordinatorBehaviours {

    private static final ClusterPlan CLUSTER = cluster(60);
    private static final Map<String, PlannedRole> ENDLESS = Map.of("worker", new PlannedRole(1, true, true));
    private static final ClusterPlan IMPATIENT = cluster(1);
    private static final long CLOSING_MS = 8_000; // both and five seconds
    private static final long PATIENCE_S = 10;

    private AmCoordinatorBehaviours() {}

    public static void theStreamEndsWithTheClusterUnlessItIsHeld() throws Exception {
        try (Scene scene = new Scene(true)) {
            scene.endCluster();
            checkEqual(scene.told.poll(), "source ended");
        }
        try (Scene scene = new Scene(true)) {
            checkEqual(scene.hold(60), 0L);
            scene.endCluster();
            check(scene.told.isEmpty(), "it has ended: " + scene.told);
            scene.ask(AmRequest.Kind.RELEASE, 0);
            checkEqual(scene.told.poll(), "source ended");
        }
    }

    public static void aHoldThatNobodyTakesBackRunsOut() throws Exception {
        try (Scene scene = new Scene(true)) {
            scene.hold(60);
            checkEqual(scene.hold(1), 0L); // the later one counts
            scene.endCluster();
            check(scene.told.isEmpty(), "it has ended: " + scene.told);
            checkEqual(scene.told.poll(PATIENCE_S, TimeUnit.SECONDS), "source ended");
        }
    }

    public static void aDrainThatNobodyOrdersRunsOut() throws Exception {
        try (Scene scene = new Scene(CLUSTER, true, ENDLESS)) {
            checkEqual(scene.ask(AmRequest.Kind.DRAIN, 60), "false"); // the cluster has not ended
            scene.endCluster();
            checkEqual(scene.ask(AmRequest.Kind.DRAIN, 60), "true");
            checkEqual(scene.ask(AmRequest.Kind.DRAIN, 1), "true"); // asked again: the later one counts
            scene.endInput();
            check(scene.told.isEmpty(), "it has ended: " + scene.told);
            checkEqual(scene.told.poll(PATIENCE_S, TimeUnit.SECONDS), "source ended");
            checkEqual(scene.ask(AmRequest.Kind.DRAIN, 60), "false");
        }
    }

    public static void aDrainAndAHoldAreTakenBackEachByItself() throws Exception {
        try (Scene scene = new Scene(CLUSTER, true, ENDLESS)) {
            scene.endCluster();
            scene.hold(60);
            scene.ask(AmRequest.Kind.DRAIN, 60);
            scene.endInput();
            scene.ask(AmRequest.Kind.RELEASE, 0);
            check(scene.told.isEmpty(), "it has ended: " + scene.told);
            scene.ask(AmRequest.Kind.DRAIN_FAILED, 0);
            checkEqual(scene.told.poll(), "source ended");
        }
    }

    public static void whoHoldsAStreamThatHasEndedIsToldHowLongItsTasksMayClose() throws Exception {
        try (Scene scene = new Scene(true)) {
            scene.endCluster();
            long first = scene.hold(60);
            check(first > CLOSING_MS - 2_000 && first <= CLOSING_MS, "closing for " + first + " ms");
            Thread.sleep(50);
            check(scene.hold(60) < first, "it does not come nearer");
            scene.coordinator.subtaskReset(0, 1);
            checkEqual(scene.hold(60), 0L); // a new deployment has a new stream
        }
    }

    public static void whatGoesWrongInATimerFailsTheJob() throws Exception {
        try (Scene scene = new Scene(false)) {
            scene.hold(1);
            scene.endCluster();
            String told = scene.told.poll(PATIENCE_S, TimeUnit.SECONDS);
            check(
                    told != null && told.contains("The coordinator of the am's source is not in the store"),
                    "told: " + told);
        }
    }

    public static void whatNeverGatheredFailsForGood() throws Exception {
        try (Scene scene = new Scene(IMPATIENT, true)) {
            scene.coordinator.subtaskReset(0, 1); // Flink tries again: part of the same wait
            String told = scene.told.poll(PATIENCE_S, TimeUnit.SECONDS);
            check(told != null && told.contains("SuppressRestartsException"), "told: " + told);
        }
    }

    public static void whatHasGatheredFailsAgainAndAgainAsOftenAsItIsRestarted() throws Exception {
        try (Scene scene = new Scene(IMPATIENT, true)) {
            scene.coordinator.executionAttemptReady(0, 1, null);
            scene.coordinator.handleEventFromOperator(
                    0, 1, new AmEvents.StatusChanged("{\"state\": \"RUNNING\", \"attempt\": 1}"));
            String early = scene.told.poll(1_500, TimeUnit.MILLISECONDS);
            check(early == null, "a limit while it runs: " + early);
            for (int restart = 0; restart < 2; restart++) { // the second one was never deployed
                scene.coordinator.subtaskReset(0, 1);
                requireRestartable(scene.told.poll(PATIENCE_S, TimeUnit.SECONDS), " again");
            }
        }
    }

    public static void aRestoredJobHasGatheredBefore() throws Exception {
        byte[] attempt = {0, 0, 0, 3};
        try (Scene scene = new Scene(IMPATIENT, true)) {
            scene.coordinator.resetToCheckpoint(7, attempt);
            scene.coordinator.executionAttemptReady(0, 1, null);
            requireRestartable(scene.told.poll(PATIENCE_S, TimeUnit.SECONDS), "");
        }
    }

    private static void requireRestartable(String told, String again) {
        check(told != null && told.startsWith(GatherTimeoutException.class.getName()), "told: " + told);
        check(told.contains("had not all registered" + again + " after 1.0 s"), "told: " + told);
    }

    private static ClusterPlan cluster(int gatherS) {
        String timeouts =
                "{\"gather_timeout_s\": " + gatherS + ", \"process_start_timeout_s\": 60, \"stop_grace_s\": 1,"
                        + " \"stop_timeout_s\": 2, \"checkpoint_hold_timeout_s\": 60}";
        return ClusterPlan.parse(
                "{\"name\": \"c\", \"uid_prefix\": \"c\", \"timeouts\": " + timeouts + "}", new Configuration());
    }

    private static final class Scene implements AutoCloseable {

        final BlockingQueue<String> told = new LinkedBlockingQueue<>();
        final AmCoordinator coordinator;

        Scene(boolean hasSource) {
            this(CLUSTER, hasSource);
        }

        Scene(ClusterPlan cluster, boolean hasSource) {
            this(cluster, hasSource, Map.of());
        }

        Scene(ClusterPlan cluster, boolean hasSource, Map<String, PlannedRole> roles) {
            CoordinatorStore store = new CoordinatorStoreImpl();
            if (hasSource) {
                store.putIfAbsent(AmStream.listeningId(cluster), source());
            }
            coordinator = new AmCoordinator(context(store), cluster, roles);
            coordinator.start();
        }

        long hold(int seconds) throws Exception {
            return Long.parseLong(ask(AmRequest.Kind.HOLD, seconds));
        }

        String ask(AmRequest.Kind kind, int seconds) throws Exception {
            return AmRequest.text(coordinator.handleCoordinationRequest(new AmRequest(kind, 0, seconds)).get());
        }

        void endCluster() {
            coordinator.handleEventFromOperator(0, 0, new AmEvents.ClusterFinished("execution"));
        }

        void endInput() {
            coordinator.handleCoordinationRequest(new InputEnded(0, "worker", 0, 1));
        }

        @Override
        public void close() {
            coordinator.close();
        }

        private OperatorCoordinator source() {
            return (OperatorCoordinator)
                    Proxy.newProxyInstance(
                            getClass().getClassLoader(),
                            new Class<?>[] {OperatorCoordinator.class},
                            (proxy, method, arguments) -> {
                                if (method.getName().equals("handleEventFromOperator")) {
                                    told.add("source ended");
                                    return null;
                                }
                                throw new UnsupportedOperationException(method.getName());
                            });
        }

        private OperatorCoordinator.Context context(CoordinatorStore store) {
            return (OperatorCoordinator.Context)
                    Proxy.newProxyInstance(
                            getClass().getClassLoader(),
                            new Class<?>[] {OperatorCoordinator.Context.class},
                            (proxy, method, arguments) -> {
                                switch (method.getName()) {
                                    case "getCoordinatorStore":
                                        return store;
                                    case "failJob":
                                        told.add(arguments[0].toString());
                                        return null;
                                    default:
                                        throw new UnsupportedOperationException(method.getName());
                                }
                            });
        }
    }
}
