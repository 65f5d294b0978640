package org.headrace.operator;

import static org.headrace.exchange.Behaviours.checkEqual;

import org.apache.flink.metrics.SimpleCounter;
import org.apache.flink.streaming.api.operators.Output;
import org.apache.flink.streaming.api.watermark.Watermark;
import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;
import org.apache.flink.streaming.runtime.watermarkstatus.WatermarkStatus;
import org.apache.flink.table.data.RowData;

import java.lang.reflect.Proxy;
import java.util.ArrayList;
import java.util.List;

/** When the time of an input passes a process, and when it passes without it. */
public final class TimeInProcessBehaviours {

    private TimeInProcessBehaviours() {}

    public static void idlenessWaitsForTheAnswerOfItsMarker() {
        Scene scene = new Scene();
        long first = scene.time.hold(WatermarkStatus.IDLE);
        scene.time.pass(WatermarkStatus.ACTIVE);
        long second = scene.time.hold(WatermarkStatus.IDLE);
        scene.time.onAnswer(first);
        scene.time.onAnswer(7); // of a checkpoint
        checkEqual(scene.emitted, List.of("ACTIVE"));
        scene.time.onAnswer(second);
        scene.time.onAnswer(second);
        checkEqual(scene.emitted, List.of("ACTIVE", "IDLE"));
    }

    public static void whatAProcessHasNotReadAtItsEndPassesInOrderAndOnce() {
        Scene scene = new Scene();
        scene.time.onWatermark(3);
        scene.time.onWatermark(5);
        scene.time.hold(WatermarkStatus.IDLE);
        scene.time.release();
        scene.time.release();
        checkEqual(scene.emitted, List.of("5", "IDLE"));
    }

    public static void whatHasComeOutIsNotRepeated() {
        Scene scene = new Scene();
        scene.time.release(); // nothing went in
        scene.time.onWatermark(5);
        scene.output.emitWatermark(9); // of the process itself
        scene.time.onAnswer(scene.time.hold(WatermarkStatus.IDLE));
        scene.time.release();
        checkEqual(scene.emitted, List.of("9", "IDLE"));
    }

    private static final class Scene {

        final List<String> emitted = new ArrayList<>();
        final RoleOutput output = new RoleOutput(listener(), new SimpleCounter());
        final TimeInProcess time = new TimeInProcess(output);

        @SuppressWarnings("unchecked")
        private Output<StreamRecord<RowData>> listener() {
            return (Output<StreamRecord<RowData>>)
                    Proxy.newProxyInstance(
                            getClass().getClassLoader(),
                            new Class<?>[] {Output.class},
                            (proxy, method, arguments) -> {
                                if (arguments[0] instanceof Watermark) {
                                    emitted.add(String.valueOf(((Watermark) arguments[0]).getTimestamp()));
                                } else if (arguments[0] instanceof WatermarkStatus) {
                                    emitted.add(arguments[0].equals(WatermarkStatus.IDLE) ? "IDLE" : "ACTIVE");
                                } else {
                                    throw new UnsupportedOperationException(method.getName());
                                }
                                return null;
                            });
        }
    }
}
