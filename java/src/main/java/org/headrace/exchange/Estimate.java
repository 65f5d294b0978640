package org.headrace.exchange;

/** What a row needs on average, learnt from the batches written. */
final class Estimate {

    /** What a batch tells. */
    enum Source {
        /** A batch laid out by the estimates. */
        MIXED_ROWS,
        /** A batch laid out for one row that did not fit an empty slot. */
        ONE_LARGE_ROW
    }

    /** Room over the mean, so that usual variation does not end batches early. */
    private static final double HEADROOM = 1.125;

    private Estimate() {}

    /**
     * The next estimate per row, after a batch of {@code rows} rows used {@code used}.
     *
     * <p>Up at once and down by halves; a single large row counts by the geometric mean, so that a
     * rare one does not shrink the batches after it to a few rows, and steady ones are soon learnt.
     */
    static double next(double present, long used, int rows, Source source) {
        double seen = HEADROOM * used / rows;
        if (source == Source.ONE_LARGE_ROW) {
            return Math.sqrt(Math.max(present, 1) * Math.max(seen, 1));
        }
        return seen >= present ? seen : (present + seen) / 2;
    }
}
