package org.headrace.operator;

import static org.headrace.exchange.Behaviours.checkEqual;

import org.apache.flink.runtime.jobgraph.OperatorID;
import org.apache.flink.runtime.jobgraph.tasks.TaskOperatorEventGateway;
import org.apache.flink.runtime.operators.coordination.CoordinationRequest;
import org.apache.flink.runtime.operators.coordination.CoordinationResponse;
import org.apache.flink.runtime.operators.coordination.OperatorEvent;
import org.apache.flink.util.SerializedValue;

import org.headrace.am.InputEnded;
import org.headrace.exchange.TestMailbox;
import org.headrace.process.MailboxWait;

import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeoutException;

/** How long the am's coordinator is told that an input has ended. */
public final class InputEndReportBehaviours {

    private static final InputEnded ENDED = new InputEnded(2, "worker", 1, 3);

    private InputEndReportBehaviours() {}

    public static void oneThatIsLostIsSentAgainUntilItIsAnswered() throws Exception {
        Scene scene = new Scene();
        scene.report.send();
        for (int lost = 1; lost <= 2; lost++) {
            checkEqual(scene.told.size(), lost);
            scene.answers.get(lost - 1).completeExceptionally(new TimeoutException("lost"));
            scene.mailbox.yield(); // the answer
            checkEqual(scene.told.size(), lost); // not at once
            scene.mailbox.yield(); // the end of the pause
        }
        scene.answers.get(2).complete(null);
        scene.mailbox.yield();
        checkEqual(scene.told, List.of(ENDED, ENDED, ENDED));
    }

    public static void nobodyIsToldOnceTheControlStreamHasEnded() throws Exception {
        Scene scene = new Scene();
        scene.report.send();
        scene.answers.get(0).completeExceptionally(new TimeoutException("lost"));
        scene.mailbox.yield();
        scene.isNeeded = false; // in the pause
        scene.mailbox.yield();
        checkEqual(scene.told.size(), 1);
    }

    private static final class Scene implements TaskOperatorEventGateway {

        final TestMailbox mailbox = new TestMailbox();
        final List<Object> told = new ArrayList<>();
        final List<CompletableFuture<CoordinationResponse>> answers = new ArrayList<>();
        boolean isNeeded = true;
        final InputEndReport report =
                new InputEndReport(this, new OperatorID(), new MailboxWait(mailbox), ENDED, () -> isNeeded);

        @Override
        public CompletableFuture<CoordinationResponse> sendRequestToCoordinator(
                OperatorID operator, SerializedValue<CoordinationRequest> request) {
            try {
                told.add(request.deserializeValue(getClass().getClassLoader()));
            } catch (Exception e) {
                throw new AssertionError(e);
            }
            answers.add(new CompletableFuture<>());
            return answers.get(answers.size() - 1);
        }

        @Override
        public void sendOperatorEventToCoordinator(OperatorID operator, SerializedValue<OperatorEvent> event) {
            throw new UnsupportedOperationException();
        }
    }
}
