package org.headrace.plan;

import org.apache.flink.annotation.Internal;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.node.ObjectNode;
import org.apache.flink.table.types.logical.RowType;

import org.headrace.exchange.ArrowSchemas;
import org.headrace.exchange.ExchangeSettings;
import org.headrace.json.Lines;

import java.io.Serializable;
import java.time.Duration;

/**
 * One role of a cluster.
 *
 * @param role its name
 * @param parallelism planned number of subtasks; the runtime may have fewer
 * @param leastParallelism fewest subtasks that Flink's adaptive scheduler may run
 * @param isLeastRequired whether the role fails with fewer: where nobody tells the scheduler
 * @param specJson what the node reads; opaque here
 * @param payload the cloudpickle payload; opaque here
 * @param exchange size and pace of the memory queue
 * @param mirror what its processes find a copy of; null without
 * @param spareAfter how long a process runs before a spare for it is started; null: never
 * @param inputType type of its input rows; null without input
 * @param outputType type of its output rows; null without output
 */
@Internal
public record RolePlan(
        String role,
        int parallelism,
        int leastParallelism,
        boolean isLeastRequired,
        String specJson,
        byte[] payload,
        ExchangeSettings exchange,
        MirrorPlan mirror,
        Duration spareAfter,
        RowType inputType,
        RowType outputType)
        implements Serializable {

    /**
     * Reads the role's JSON.
     *
     * @throws org.headrace.exchange.UnsupportedTypeException if a column cannot travel through the queue
     */
    public static RolePlan parse(String json, byte[] payload, RowType inputType, RowType outputType) {
        requireTravels(inputType);
        requireTravels(outputType);
        ObjectNode plan = Lines.parse(json);
        ObjectNode exchange = Lines.requireObject(plan, "exchange");
        return new RolePlan(
                Lines.requireText(plan, "role"),
                Lines.requireInt(plan, "parallelism"),
                plan.path("least_parallelism").asInt(Lines.requireInt(plan, "parallelism")),
                plan.path("is_least_required").booleanValue(),
                plan.path("spec").toString(),
                payload.clone(),
                new ExchangeSettings(
                        Lines.requireInt(exchange, "slots"),
                        Lines.requireInt(exchange, "slot_bytes"),
                        Lines.requireInt(exchange, "batch_rows"),
                        Lines.requireInt(exchange, "linger_ms"),
                        Lines.requireInt(exchange, "max_row_bytes")),
                MirrorPlan.parse(plan.path("mirror")),
                plan.path("spare_after_ms").isNumber()
                        ? Duration.ofMillis(plan.path("spare_after_ms").longValue())
                        : null,
                inputType,
                outputType);
    }

    private static void requireTravels(RowType type) {
        if (type != null) {
            ArrowSchemas.toArrow(type);
        }
    }
}
