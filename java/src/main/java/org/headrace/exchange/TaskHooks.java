package org.headrace.exchange;

import org.apache.flink.annotation.Internal;
import org.apache.flink.api.common.operators.MailboxExecutor;
import org.apache.flink.api.common.operators.ProcessingTimeService;

/**
 * What a memory queue needs of its Flink task.
 *
 * @param mailbox of the operator; the queue's waits yield to it
 * @param timers whose callbacks run on the task thread
 * @param onBlocked called when a write begins to wait for the process (hard back-pressure)
 * @param onUnblocked called when it goes on
 */
@Internal
public record TaskHooks(
        MailboxExecutor mailbox,
        ProcessingTimeService timers,
        Runnable onBlocked,
        Runnable onUnblocked) {}
