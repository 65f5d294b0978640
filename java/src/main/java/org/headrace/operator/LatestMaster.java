package org.headrace.operator;

import org.apache.flink.annotation.Internal;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.node.ObjectNode;

import org.headrace.json.Lines;

/**
 * Which master a node knows, and whether the am's coordinator is being asked for a newer one.
 *
 * <p>Records come by the control stream, which may wait behind rows, and as answers of the coordinator, so an
 * older one may arrive after a newer one. They are ordered by deployment, then by the restarts of the master.
 * Those of the coordinator come without the token, which is the same for all masters of a deployment.
 *
 * <p>Thread model: task thread only.
 */
@Internal
public final class LatestMaster {

    private boolean isKnown; // false until the first record
    private int deployment;
    private int masterRestarts;
    private String token;
    private boolean isAsking;

    /** Notes the master of a control record; returns false, and notes nothing, if it is not a newer one. */
    public boolean accept(String record) {
        ObjectNode line = Lines.parse(record);
        int itsDeployment = Lines.requireInt(line, "deployment");
        int itsRestarts = Lines.requireInt(line, "master_restarts");
        boolean isLater = itsDeployment > deployment || (itsDeployment == deployment && itsRestarts > masterRestarts);
        if (isKnown && !isLater) {
            return false;
        }
        token = Lines.requireText(line, "token");
        isKnown = true;
        deployment = itsDeployment;
        masterRestarts = itsRestarts;
        return true;
    }

    /**
     * The deployment of the latest record: the number of the am's execution. That of a role's subtask may be
     * another one, since Flink's adaptive scheduler counts the executions of each subtask by itself.
     */
    public int deployment() {
        return deployment;
    }

    /**
     * The record that an answer of the coordinator stands for: with the token of the latest record. The question
     * named its deployment, so an answer of another one is older, and {@link #accept} refuses it.
     */
    public String complete(String answer) {
        return Lines.parse(answer).put("token", token).toString();
    }

    /** Whether to ask now; true once, until {@link #endAsking}. */
    public boolean beginAsking() {
        boolean isFirst = !isAsking;
        isAsking = true;
        return isFirst;
    }

    /** The answer has come, or none will. */
    public void endAsking() {
        isAsking = false;
    }
}
