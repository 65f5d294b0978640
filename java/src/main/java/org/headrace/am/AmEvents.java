package org.headrace.am;

import org.apache.flink.runtime.operators.coordination.OperatorEvent;

/** What the am operator tells its coordinator. */
final class AmEvents {

    private AmEvents() {}

    /**
     * The master's status has changed.
     *
     * @param status JSON text: docs/lifecycle.md, section 4
     */
    record StatusChanged(String status) implements OperatorEvent {}

    /**
     * A master listens.
     *
     * @param record what the control stream says of it, but for the token
     */
    record MasterListens(String record) implements OperatorEvent {}

    /**
     * The ML cluster has ended with success.
     *
     * @param sourceExecution the reader of the am's source that shall end
     */
    record ClusterFinished(String sourceExecution) implements OperatorEvent {}
}
