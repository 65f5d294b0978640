package org.headrace.am;

import org.apache.flink.annotation.Internal;
import org.apache.flink.runtime.operators.coordination.CoordinationRequest;
import org.apache.flink.runtime.operators.coordination.CoordinationResponse;
import org.apache.flink.streaming.api.operators.collect.CollectCoordinationResponse;

import java.util.List;

/**
 * What can be asked of the am operator's coordinator.
 *
 * <p>The answer is a {@link CollectCoordinationResponse}, whose version field carries our text:
 * Flink deserialises answers with the class loader of its own jars, which does not know ours.
 *
 * @param kind the question
 * @param deployment number of the asking execution; 0 from a client
 * @param seconds for how long; 0 where that is no question
 */
@Internal
public record AmRequest(Kind kind, int deployment, int seconds) implements CoordinationRequest {

    /** A question that names no length. */
    public AmRequest(Kind kind, int deployment) {
        this(kind, deployment, 0);
    }

    /** The questions. */
    public enum Kind {
        /** The latest status, as JSON. */
        STATUS,
        /** The number of the first attempt of a new deployment, as decimal text. */
        FIRST_ATTEMPT,
        /** The latest record of the control stream about the master, without the token; empty if there is none. */
        MASTER,
        /**
         * Whether the client has to drain the job: "true" if the ML cluster has ended and an input goes
         * on; the control stream then stays open until the drain, for {@code seconds} at most, as the client may die.
         */
        DRAIN,
        /** Flink has not drained the job: the control stream may end. */
        DRAIN_FAILED,
        /**
         * Keep the control stream open, since the client stops the job with a savepoint, which must not meet a task
         * that is just closing. Forgotten after {@code seconds}, as the client may die. The answer says for how many
         * milliseconds to wait before: 0, or if it has ended already, until the tasks at its end are gone.
         */
        HOLD,
        /** The client has stopped nothing: the control stream may end. */
        RELEASE
    }

    static CoordinationResponse answer(String text) {
        return new CollectCoordinationResponse(text, 0, List.of());
    }

    /** The text of an answer. */
    public static String text(CoordinationResponse answer) {
        return ((CollectCoordinationResponse) answer).getVersion();
    }
}
