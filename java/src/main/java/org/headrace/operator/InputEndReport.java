package org.headrace.operator;

import org.apache.flink.runtime.jobgraph.OperatorID;
import org.apache.flink.runtime.jobgraph.tasks.TaskOperatorEventGateway;
import org.apache.flink.runtime.operators.coordination.CoordinationRequest;
import org.apache.flink.util.SerializedValue;

import org.headrace.am.InputEnded;
import org.headrace.process.MailboxWait;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

import java.io.IOException;
import java.time.Duration;
import java.util.function.BooleanSupplier;

/**
 * Tells the am's coordinator that the data input of a subtask is used up, again and again until it has answered:
 * the end of an endless input ends the control stream, and Flink does not repeat a message that was lost. To hear
 * it twice does the coordinator no harm.
 *
 * <p>Thread model: task thread only; never blocks.
 */
final class InputEndReport {

    private static final Logger LOG = LoggerFactory.getLogger(InputEndReport.class);
    private static final Duration PAUSE = Duration.ofSeconds(1);

    private final TaskOperatorEventGateway gateway;
    private final OperatorID amOperator;
    private final MailboxWait wait;
    private final InputEnded ended;
    private final BooleanSupplier isNeeded;
    private boolean isLossTold;

    /**
     * A report that is to be sent.
     *
     * @param isNeeded whether the control stream goes on; asked before the report is sent again
     */
    InputEndReport(
            TaskOperatorEventGateway gateway,
            OperatorID amOperator,
            MailboxWait wait,
            InputEnded ended,
            BooleanSupplier isNeeded) {
        this.gateway = gateway;
        this.amOperator = amOperator;
        this.wait = wait;
        this.ended = ended;
        this.isNeeded = isNeeded;
    }

    void send() throws IOException {
        gateway.sendRequestToCoordinator(amOperator, new SerializedValue<CoordinationRequest>(ended))
                .whenComplete((answer, failure) -> wait.post(() -> onAnswer(failure), "headrace input end"));
    }

    private void onAnswer(Throwable failure) {
        if (failure != null && isNeeded.getAsBoolean()) {
            if (!isLossTold) {
                isLossTold = true;
                LOG.warn("The am's coordinator did not answer that an input has ended; told again: {}", ended, failure);
            }
            wait.after(
                    PAUSE,
                    () -> {
                        if (isNeeded.getAsBoolean()) {
                            send();
                        }
                    });
        }
    }
}
