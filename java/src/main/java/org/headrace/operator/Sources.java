package org.headrace.operator;

import org.apache.flink.api.connector.source.Boundedness;
import org.apache.flink.api.dag.Transformation;
import org.apache.flink.streaming.api.transformations.LegacySourceTransformation;
import org.apache.flink.streaming.api.transformations.WithBoundedness;

import java.util.Set;

/** Which sources end by themselves. */
final class Sources {

    /**
     * Functions that Flink adds as unbounded sources although they read a given number of rows: VALUES,
     * {@code from_elements}, {@code from_collection}, {@code from_pandas}.
     */
    private static final Set<String> GIVEN_ROWS =
            Set.of(
                    "org.apache.flink.streaming.api.functions.source.legacy.InputFormatSourceFunction",
                    "org.apache.flink.streaming.api.functions.source.legacy.FromElementsFunction",
                    "org.apache.flink.table.runtime.arrow.sources.ArrowSourceFunction");

    private Sources() {}

    /** Whether every source behind the transformation, itself included, ends by itself. */
    static boolean end(Transformation<?> transformation) {
        return transformation.getTransitivePredecessors().stream().allMatch(Sources::isNoEndlessSource);
    }

    private static boolean isNoEndlessSource(Transformation<?> transformation) {
        if (!(transformation instanceof WithBoundedness source) || source.getBoundedness() == Boundedness.BOUNDED) {
            return true;
        }
        return transformation instanceof LegacySourceTransformation<?> legacy
                && GIVEN_ROWS.contains(
                        legacy.getOperator().getUserFunction().getClass().getName());
    }
}
