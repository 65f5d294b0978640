package org.headrace.am;

import static org.headrace.exchange.Behaviours.check;
import static org.headrace.exchange.Behaviours.checkEqual;

import org.apache.flink.configuration.Configuration;
import org.apache.flink.runtime.operators.coordination.CoordinatorStore;
import org.apache.flink.runtime.operators.coordination.CoordinatorStoreImpl;
import org.apache.flink.runtime.operators.coordination.OperatorCoordinator;

import org.headrace.plan.ClusterPlan;

import java.lang.reflect.Proxy;
import java.util.Map;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;

/** What keeps the control stream open, and until when; with Flink's own store of coordinators. */
public final class AmCoordinatorBehaviours {

    private static final String TIMEOUTS =
            "{\"gather_timeout_s\": 60, \"process_start_timeout_s\": 60, \"stop_grace_s\": 1, \"stop_timeout_s\": 2,"
                    + " \"checkpoint_hold_timeout_s\": 60}";
    private static final ClusterPlan CLUSTER =
            ClusterPlan.parse(
                    "{\"name\": \"c\", \"uid_prefix\": \"c\", \"timeouts\": " + TIMEOUTS + "}", new Configuration());
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

    private static final class Scene implements AutoCloseable {

        final BlockingQueue<String> told = new LinkedBlockingQueue<>();
        final AmCoordinator coordinator;

        Scene(boolean hasSource) {
            CoordinatorStore store = new CoordinatorStoreImpl();
            if (hasSource) {
                store.putIfAbsent(AmStream.listeningId(CLUSTER), source());
            }
            coordinator = new AmCoordinator(context(store), CLUSTER, Map.of());
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
