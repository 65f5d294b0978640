package org.headrace.benchmarks;

import org.apache.flink.table.annotation.DataTypeHint;
import org.apache.flink.table.functions.ScalarFunction;

import java.util.Random;

/** A payload for a row that costs nothing to make: one of some that were made before. */
public final class Payload extends ScalarFunction {

    private static final long serialVersionUID = 1L;
    private static final int DIFFERENT = 16;

    private transient byte[][] payloads;

    /** Returns bytes that differ from those of the rows around it. */
    public @DataTypeHint("BYTES") byte[] eval(long id, int length) {
        if (payloads == null) {
            Random random = new Random(0);
            payloads = new byte[DIFFERENT][length];
            for (byte[] payload : payloads) {
                random.nextBytes(payload);
            }
        }
        return payloads[(int) (id % DIFFERENT)];
    }
}
