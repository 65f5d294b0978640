package org.headrace.am;

import org.apache.flink.annotation.Internal;
import org.apache.flink.runtime.operators.coordination.CoordinationRequest;

/**
 * A role subtask tells the am operator's coordinator that its data input is used up.
 *
 * @param deployment number of the subtask's execution
 * @param role name of the role
 * @param index subtask index
 * @param parallelism subtasks of the role at run time
 */
@Internal
public record InputEnded(int deployment, String role, int index, int parallelism) implements CoordinationRequest {}
