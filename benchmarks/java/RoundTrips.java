package org.headrace.benchmarks;

import org.apache.flink.api.common.eventtime.WatermarkStrategy;
import org.apache.flink.api.common.functions.OpenContext;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.api.connector.source.util.ratelimit.RateLimiterStrategy;
import org.apache.flink.connector.datagen.source.DataGeneratorSource;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.streaming.api.functions.ProcessFunction;
import org.apache.flink.streaming.api.functions.sink.v2.DiscardingSink;
import org.apache.flink.table.data.RowData;
import org.apache.flink.util.Collector;

import java.io.BufferedWriter;
import java.nio.file.Files;
import java.nio.file.Path;

/**
 * Both ends of a round trip that is timed: a source of stamps at an even pace, and a probe that says
 * how old a stamp is when it comes back. Both read the clock of one JVM.
 */
public final class RoundTrips {

    private RoundTrips() {}

    /** A bounded stream of {@code System.nanoTime()}, taken when the record leaves the source. */
    public static DataStream<Long> stamps(StreamExecutionEnvironment env, long rows, double rowsPerSecond) {
        DataGeneratorSource<Long> source =
                new DataGeneratorSource<>(
                        index -> System.nanoTime(), rows, RateLimiterStrategy.perSecond(rowsPerSecond), Types.LONG);
        return env.fromSource(source, WatermarkStrategy.noWatermarks(), "stamps");
    }

    /**
     * Writes when each row came and how old the stamp in its first column was then: two numbers of
     * nanoseconds a line. Each subtask writes a file of its own, {@code path} and its index.
     */
    public static void probe(DataStream<RowData> stream, String path) {
        stream.process(new Probe(path)).sinkTo(new DiscardingSink<>());
    }

    private static final class Probe extends ProcessFunction<RowData, Long> {

        private static final long serialVersionUID = 1L;

        private final String path;
        private transient BufferedWriter ages;

        Probe(String path) {
            this.path = path;
        }

        @Override
        public void open(OpenContext openContext) throws Exception {
            int index = getRuntimeContext().getTaskInfo().getIndexOfThisSubtask();
            ages = Files.newBufferedWriter(Path.of(path + index));
        }

        @Override
        public void processElement(RowData row, Context context, Collector<Long> out) throws Exception {
            long now = System.nanoTime();
            ages.write(now + " " + (now - row.getLong(0)));
            ages.newLine();
        }

        @Override
        public void close() throws Exception {
            if (ages != null) {
                ages.close();
            }
        }
    }
}
