package org.headrace.plan;

import org.apache.flink.annotation.Internal;

import java.io.Serializable;

/**
 * What the am has to know about a role.
 *
 * @param parallelism nodes in the plan; at run time the nodes report the real number
 * @param hasInput whether rows flow into the role
 * @param isEndless whether its input never ends by itself
 */
@Internal
public record PlannedRole(int parallelism, boolean hasInput, boolean isEndless) implements Serializable {}
