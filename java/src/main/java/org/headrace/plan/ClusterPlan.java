package org.headrace.plan;

import org.apache.flink.annotation.Internal;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.JsonNode;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.node.ObjectNode;

import org.headrace.json.Lines;

import java.io.Serializable;
import java.util.ArrayList;
import java.util.List;

/**
 * One ML cluster, as the Python plan describes it.
 *
 * @param name name of the cluster
 * @param uidPrefix stem of the uids of its operators
 * @param amSpecJson what the master reads; opaque here
 * @param masterModule the Python module of the master process
 * @param nodeModule the Python module of the node processes
 * @param timeouts limits on every wait
 * @param maxMasterRestarts restarts of a lost master before the job fails
 * @param offer what to do about missing slots; part of an error text
 * @param pythonPath entries appended to the children's PYTHONPATH
 * @param pythonConfig PyFlink's dependency settings
 */
@Internal
public record ClusterPlan(
        String name,
        String uidPrefix,
        String amSpecJson,
        String masterModule,
        String nodeModule,
        Timeouts timeouts,
        int maxMasterRestarts,
        String offer,
        List<String> pythonPath,
        Configuration pythonConfig)
        implements Serializable {

    /**
     * Reads the cluster's JSON.
     *
     * @param pythonConfig what {@code PythonConfigUtil.extractPythonConfiguration} gave
     */
    public static ClusterPlan parse(String json, Configuration pythonConfig) {
        ObjectNode plan = Lines.parse(json);
        List<String> pythonPath = new ArrayList<>();
        for (JsonNode each : plan.path("python_path")) {
            pythonPath.add(each.textValue());
        }
        return new ClusterPlan(
                Lines.requireText(plan, "name"),
                Lines.requireText(plan, "uid_prefix"),
                plan.path("am_spec").toString(),
                plan.path("master_module").asText("headrace.framework.master"),
                plan.path("node_module").asText("headrace.framework.node"),
                Timeouts.parse(plan.path("timeouts")),
                plan.path("max_master_restarts").asInt(0),
                plan.path("offer").asText(""),
                List.copyOf(pythonPath),
                pythonConfig);
    }

    /** The uid of the am operator; requests to its coordinator name it. */
    public String amUid() {
        return uidPrefix + "-am";
    }
}
