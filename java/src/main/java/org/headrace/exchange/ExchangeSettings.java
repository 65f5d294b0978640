package org.headrace.exchange;

import org.apache.flink.annotation.Internal;

import java.io.Serializable;

/**
 * Size and pace of a memory queue: the values of Python's `ExchangeConfig`, which has checked them.
 *
 * @param slots batches that fit into one direction
 * @param slotBytes bytes of one batch; a multiple of 4096
 * @param batchRows most rows in one batch
 * @param lingerMs how long a batch that is not full may wait; 0: it leaves as soon as the process is
 *     free
 * @param maxRowBytes a row over this is an error
 */
@Internal
public record ExchangeSettings(
        int slots, int slotBytes, int batchRows, long lingerMs, long maxRowBytes)
        implements Serializable {

    private static final int PAGE_BYTES = 4096;

    public ExchangeSettings {
        require(slots >= 2, "slots", slots);
        require(slotBytes >= 1 << 16 && slotBytes % PAGE_BYTES == 0, "slot_bytes", slotBytes);
        require(batchRows >= 1, "batch_rows", batchRows);
        require(lingerMs >= 0, "linger_ms", lingerMs);
        require(maxRowBytes >= 1, "max_row_bytes", maxRowBytes);
    }

    private static void require(boolean holds, String name, long value) {
        if (!holds) {
            throw new IllegalArgumentException("exchange." + name + "=" + value);
        }
    }
}
