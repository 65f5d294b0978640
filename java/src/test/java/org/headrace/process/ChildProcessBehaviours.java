package org.headrace.process;

import static org.headrace.exchange.Behaviours.check;
import static org.headrace.exchange.Behaviours.checkEqual;

import org.apache.flink.runtime.execution.SuppressRestartsException;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.node.ObjectNode;

import org.headrace.json.Lines;

import java.time.Duration;
import java.util.List;
import java.util.OptionalInt;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.Callable;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;

/** What is told of a child where the machine has no thread left. */
public final class ChildProcessBehaviours {

    private static final long PATIENCE_S = 10;

    private ChildProcessBehaviours() {}

    public static void aChildThatNobodyCanServeIsKilledAndToldOnce() throws Exception {
        for (String lacking : List.of("stderr", "stdin")) {
            try (Scene scene = new Scene(lacking, () -> new ProcessBuilder("sleep", "1000"))) {
                checkScarce(scene.told.poll(PATIENCE_S, TimeUnit.SECONDS));
                long pid = scene.child.pid().orElseThrow();
                ProcessHandle.of(pid).ifPresent(left -> left.onExit().orTimeout(PATIENCE_S, TimeUnit.SECONDS).join());
                scene.child.close();
                check(scene.told.isEmpty(), "told again: " + scene.told);
            }
        }
    }

    public static void anErrorBeforeTheChildIsToldToo() throws Exception {
        Callable<ProcessBuilder> command =
                () -> {
                    throw new OutOfMemoryError("unable to create native thread");
                };
        try (Scene scene = new Scene("none", command)) {
            checkScarce(scene.told.poll(PATIENCE_S, TimeUnit.SECONDS));
        }
    }

    public static void theEndIsToldWithoutAThreadForIt() throws Exception {
        try (Scene scene = new Scene("exit", () -> new ProcessBuilder("true"))) {
            ChildExit exit = scene.told.poll(PATIENCE_S, TimeUnit.SECONDS);
            check(exit != null, "nothing was told");
            checkEqual(exit.exitCode(), OptionalInt.of(0));
        }
    }

    private static void checkScarce(ChildExit exit) {
        check(exit != null, "nothing was told");
        checkEqual(exit.exitCode(), OptionalInt.empty());
        String text = exit.describe("The node");
        checkEqual(text, "The node could not be started: unable to create native thread.");
        check(!(exit.toException(text) instanceof SuppressRestartsException), "it fails for good");
    }

    /** A child whose thread of one kind cannot be started. */
    private static final class Scene implements ChildProcess.Listener, AutoCloseable {

        final BlockingQueue<ChildExit> told = new LinkedBlockingQueue<>();
        final ChildProcess child;

        Scene(String lacking, Callable<ProcessBuilder> command) {
            child =
                    new ChildProcess(
                            "test-0", "test", command, this, Duration.ZERO, run -> thread(run, lacking));
            child.start(Lines.ofType("start"));
        }

        private static Thread thread(Runnable run, String lacking) {
            return new Thread(run) {
                @Override
                public void start() {
                    if (getName().equals("test " + lacking)) {
                        throw new OutOfMemoryError("unable to create native thread");
                    }
                    super.start();
                }
            };
        }

        @Override
        public void onLine(ObjectNode line) {}

        @Override
        public void onExit(ChildExit exit) {
            told.add(exit);
        }

        @Override
        public void close() {
            child.close();
        }
    }
}
