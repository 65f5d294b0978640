package org.headrace.am;

import org.apache.flink.runtime.execution.SuppressRestartsException;
import org.apache.flink.runtime.operators.coordination.CoordinationRequest;
import org.apache.flink.runtime.operators.coordination.CoordinationRequestHandler;
import org.apache.flink.runtime.operators.coordination.CoordinationResponse;
import org.apache.flink.runtime.operators.coordination.OperatorCoordinator;
import org.apache.flink.runtime.operators.coordination.OperatorEvent;
import org.apache.flink.runtime.source.event.SourceEventWrapper;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.JsonNode;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.node.ObjectNode;

import org.headrace.json.Lines;
import org.headrace.plan.ClusterPlan;
import org.headrace.plan.PlannedRole;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

import java.nio.ByteBuffer;
import java.time.Duration;
import java.util.ArrayList;
import java.util.EnumMap;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.Executors;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.ScheduledFuture;
import java.util.concurrent.TimeUnit;

/**
 * The part of the application master that lives in the JobManager: it keeps the latest status for
 * clients, counts attempts over deployments, fails a job whose nodes do not gather in time, and ends the
 * am's source when the ML cluster has ended.
 *
 * <p>Whoever reaches Flink's REST API can ask it what tasks ask, so it is told no secret: the job's token never
 * comes to the JobManager.
 *
 * <p>Thread model: Flink calls it in the JobMaster's main thread, timers in a thread of their
 * own; all methods are synchronized and none blocks. An exception fails the job.
 */
final class AmCoordinator implements OperatorCoordinator, CoordinationRequestHandler {

    private static final Logger LOG = LoggerFactory.getLogger(AmCoordinator.class);
    private static final String GATHERING = "GATHERING";
    private static final Duration CLOSING_MARGIN = Duration.ofSeconds(5);

    private final Context context;
    private final ClusterPlan cluster;
    private final Map<String, PlannedRole> plannedRoles;

    private ScheduledExecutorService timers;
    private ScheduledFuture<?> gatherTimer;
    private ObjectNode status;
    private int lastAttempt;
    private int deployment;
    private boolean isDeployed;
    private boolean hasGathered; // in this deployment, or before it as far as is known here
    private boolean hasRun; // as above, in this JobManager
    private final Map<String, Set<Integer>> endedInputs = new HashMap<>();
    private final Map<String, Integer> inputs = new HashMap<>();
    private String finishedSource;
    private String masterRecord = "";
    private Long sourceEndedNs; // null: it goes on
    private final Map<AmRequest.Kind, Hold> holds = new EnumMap<>(AmRequest.Kind.class); // by what began them

    AmCoordinator(Context context, ClusterPlan cluster, Map<String, PlannedRole> plannedRoles) {
        this.context = context;
        this.cluster = cluster;
        this.plannedRoles = plannedRoles;
        status = emptyStatus();
    }

    @Override
    public synchronized void start() {
        timers =
                Executors.newSingleThreadScheduledExecutor(
                        run -> {
                            Thread thread = new Thread(run, "headrace " + cluster.name() + " am timer");
                            thread.setDaemon(true);
                            return thread;
                        });
        startGatherTimer();
    }

    @Override
    public synchronized void close() {
        if (timers != null) {
            timers.shutdownNow();
            timers = null;
        }
    }

    @Override
    public synchronized void handleEventFromOperator(int subtask, int attemptNumber, OperatorEvent event) {
        if (attemptNumber < deployment) {
            LOG.info("Ignoring {} of the earlier deployment {}", event.getClass().getSimpleName(), attemptNumber);
        } else if (event instanceof AmEvents.StatusChanged) {
            onStatus(Lines.parse(((AmEvents.StatusChanged) event).status()));
        } else if (event instanceof AmEvents.MasterListens) {
            masterRecord = ((AmEvents.MasterListens) event).record();
        } else if (event instanceof AmEvents.ClusterFinished) {
            stopGatherTimer();
            finishedSource = ((AmEvents.ClusterFinished) event).sourceExecution();
            endSourceIfInputsAreOver();
        } else {
            throw new IllegalArgumentException("Unknown event " + event);
        }
    }

    @Override
    public synchronized CompletableFuture<CoordinationResponse> handleCoordinationRequest(
            CoordinationRequest request) {
        if (request instanceof InputEnded) {
            onInputEnded((InputEnded) request);
            return CompletableFuture.completedFuture(AmRequest.answer(""));
        }
        AmRequest question = (AmRequest) request;
        switch (question.kind()) {
            case STATUS:
                return CompletableFuture.completedFuture(AmRequest.answer(status.toString()));
            case FIRST_ATTEMPT:
                lastAttempt = Math.max(lastAttempt, question.deployment()) + 1;
                return CompletableFuture.completedFuture(AmRequest.answer(String.valueOf(lastAttempt)));
            case MASTER:
                return CompletableFuture.completedFuture(
                        AmRequest.answer(question.deployment() == deployment ? masterRecord : ""));
            case DRAIN:
                if (finishedSource != null) {
                    hold(question);
                }
                return CompletableFuture.completedFuture(AmRequest.answer(String.valueOf(finishedSource != null)));
            case DRAIN_FAILED:
                release(AmRequest.Kind.DRAIN);
                return CompletableFuture.completedFuture(AmRequest.answer(""));
            case HOLD:
                hold(question);
                return CompletableFuture.completedFuture(AmRequest.answer(String.valueOf(closingMs())));
            case RELEASE:
                release(AmRequest.Kind.HOLD);
                return CompletableFuture.completedFuture(AmRequest.answer(""));
            default:
                throw new IllegalArgumentException("Unknown request " + question);
        }
    }

    @Override
    public synchronized void checkpointCoordinator(long checkpointId, CompletableFuture<byte[]> result) {
        result.complete(ByteBuffer.allocate(Integer.BYTES).putInt(lastAttempt).array());
    }

    @Override
    public synchronized void resetToCheckpoint(long checkpointId, byte[] state) {
        if (state != null && state.length == Integer.BYTES) {
            lastAttempt = Math.max(lastAttempt, ByteBuffer.wrap(state).getInt());
            hasGathered = true; // there was a checkpoint
        }
        onRestart();
    }

    @Override
    public synchronized void subtaskReset(int subtask, long checkpointId) {
        onRestart();
    }

    @Override
    public void executionAttemptFailed(int subtask, int attemptNumber, Throwable reason) {}

    @Override
    public synchronized void executionAttemptReady(int subtask, int attemptNumber, SubtaskGateway gateway) {
        deployment = attemptNumber;
        isDeployed = true;
        if (hasGathered && gatherTimer != null) {
            startGatherTimer(); // the wait for slots was another one
        }
    }

    @Override
    public void notifyCheckpointComplete(long checkpointId) {}

    private void onStatus(ObjectNode changed) {
        status = changed;
        lastAttempt = Math.max(lastAttempt, changed.path("attempt").asInt(0));
        if (!GATHERING.equals(changed.path("state").asText(GATHERING))) {
            hasGathered = true;
            hasRun = true;
            stopGatherTimer();
        }
    }

    /**
     * A deployment that was never made does not renew the limit, unless that has ended it: a lack of slots makes
     * Flink retry without end, and each retry is part of the same wait.
     */
    private void onRestart() {
        status = emptyStatus();
        masterRecord = "";
        endedInputs.clear();
        inputs.clear();
        finishedSource = null;
        sourceEndedNs = null;
        Set.copyOf(holds.keySet()).forEach(this::endHold);
        if (isDeployed || gatherTimer == null) {
            isDeployed = false;
            startGatherTimer();
        }
    }

    private void onInputEnded(InputEnded ended) {
        if (ended.deployment() >= deployment) {
            inputs.put(ended.role(), ended.parallelism());
            endedInputs.computeIfAbsent(ended.role(), role -> new HashSet<>()).add(ended.index());
            endSourceIfInputsAreOver();
        }
    }

    /**
     * Ends the control stream once the ML cluster has ended. Not while an endless input goes on: Flink's
     * tasks could not end, and the drain that ends them must not meet a task that is just closing.
     */
    private void endSourceIfInputsAreOver() {
        boolean isOver = plannedRoles.entrySet().stream().allMatch(each -> isOver(each.getKey(), each.getValue()));
        if (finishedSource != null && isOver && holds.isEmpty()) {
            String source = finishedSource;
            finishedSource = null;
            sourceEndedNs = System.nanoTime();
            endSource(source, deployment);
        }
    }

    /** Keeps the control stream open for a client, which may die: never for longer than it has said. */
    private void hold(AmRequest question) {
        endHold(question.kind());
        if (timers != null) {
            Hold hold = new Hold();
            Runnable end = failing(() -> onHoldTimeout(question.kind(), hold));
            hold.timer = timers.schedule(end, question.seconds(), TimeUnit.SECONDS);
            holds.put(question.kind(), hold);
        }
    }

    /** A timer that had fired and waited here while its hold was renewed, ends nothing. */
    private synchronized void onHoldTimeout(AmRequest.Kind kind, Hold hold) {
        if (holds.get(kind) == hold) {
            release(kind);
        }
    }

    /** For how long the tasks at the end of the control stream may still be closing; 0 where it has not ended. */
    private long closingMs() {
        if (sourceEndedNs == null) {
            return 0;
        }
        Duration limit = cluster.timeouts().stop().plus(cluster.timeouts().stopGrace()).plus(CLOSING_MARGIN);
        return Math.max(0, limit.toMillis() - TimeUnit.NANOSECONDS.toMillis(System.nanoTime() - sourceEndedNs));
    }

    /** What a timer runs: its exception would be seen by nobody else. */
    private Runnable failing(Runnable action) {
        return () -> {
            try {
                action.run();
            } catch (Throwable e) {
                context.failJob(e);
            }
        };
    }

    private void release(AmRequest.Kind kind) {
        endHold(kind);
        endSourceIfInputsAreOver();
    }

    private void endHold(AmRequest.Kind kind) {
        Hold hold = holds.remove(kind);
        if (hold != null) {
            hold.timer.cancel(false);
        }
    }

    private boolean isOver(String role, PlannedRole planned) {
        int ended = endedInputs.getOrDefault(role, Set.of()).size();
        return !planned.isEndless() || (ended > 0 && ended == inputs.get(role));
    }

    private void startGatherTimer() {
        stopGatherTimer();
        if (timers != null) {
            gatherTimer =
                    timers.schedule(
                            failing(this::onGatherTimeout), cluster.timeouts().gather().toMillis(), TimeUnit.MILLISECONDS);
        }
    }

    private void stopGatherTimer() {
        if (gatherTimer != null) {
            gatherTimer.cancel(false);
            gatherTimer = null;
        }
    }

    /**
     * What never gathered is planned for more than there is. What did has lost something, which may come back: the
     * job's restart strategy says how often that is waited for.
     */
    private synchronized void onGatherTimeout() {
        if (gatherTimer == null || timers == null) {
            return;
        }
        gatherTimer = null;
        GatherTimeoutException failure =
                new GatherTimeoutException(
                        cluster.name(),
                        cluster.timeouts().gather(),
                        plannedRoles,
                        describeRegistered(),
                        hasRun ? "" : cluster.offer(),
                        hasRun,
                        hasGathered);
        context.failJob(hasGathered ? failure : new SuppressRestartsException(failure));
    }

    private String describeRegistered() {
        if (!isDeployed) {
            return "Flink has not deployed the job yet: it lacks task slots.";
        }
        if (status.path("attempt").asInt(0) == 0) {
            return "The master process has not reported yet: it hangs, or its Python environment is not ready.";
        }
        List<String> missing = new ArrayList<>();
        status.path("missing").forEach(node -> missing.add(node.asText()));
        JsonNode expected = status.path("expected"); // what runs; the scheduler may have started fewer than planned
        int planned = plannedRoles.values().stream().mapToInt(PlannedRole::parallelism).sum();
        int registered = status.path("registered").asInt(0);
        int hidden = expected.asInt(0) - registered - missing.size();
        return String.format(
                "Registered: %s of %s nodes, missing: %s%s.",
                registered,
                expected.isInt() ? expected.asText() : "about " + planned,
                String.join(", ", missing),
                hidden > 0 ? " and " + hidden + " more" : "");
    }

    /**
     * Source: {@code SourceCoordinator.start} puts itself into the store under the id of {@code
     * SourceTransformation.setCoordinatorListeningID}; the store is shared by a job's coordinators.
     */
    private void endSource(String sourceExecution, int attemptNumber) {
        SourceEventWrapper event = new SourceEventWrapper(new EndControlStream(sourceExecution));
        Object source = context.getCoordinatorStore().get(AmStream.listeningId(cluster));
        if (!(source instanceof OperatorCoordinator)) {
            throw new IllegalStateException("The coordinator of the am's source is not in the store: " + source);
        }
        try {
            ((OperatorCoordinator) source).handleEventFromOperator(0, attemptNumber, event);
        } catch (Exception e) {
            throw new IllegalStateException("The coordinator of the am's source took no event", e);
        }
    }

    private static ObjectNode emptyStatus() {
        ObjectNode empty = Lines.parse("{\"restarts\":0,\"registered\":0,\"expected\":null,\"reason\":null,\"nodes\":{}}");
        return empty.put("state", GATHERING).put("attempt", 0);
    }

    private static final class Hold {
        private ScheduledFuture<?> timer;
    }
}
