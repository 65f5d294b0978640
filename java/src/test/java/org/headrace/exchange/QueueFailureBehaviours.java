package org.headrace.exchange;

import static org.headrace.exchange.Behaviours.check;
import static org.headrace.exchange.Behaviours.checkEqual;
import static org.headrace.exchange.Behaviours.checkThrows;
import static org.headrace.exchange.QueueFixture.TYPE;
import static org.headrace.exchange.QueueFixture.row;

import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;

/** What the memory queue does when the process dies, floods, sleeps, or talks nonsense. */
public final class QueueFailureBehaviours {

    private static final long LONG_LINGER_MS = 60_000;
    private static final int HELD_BACK = 6_000; // over what is taken at once, within what the socket holds

    private QueueFailureBehaviours() {}

    public static void aConnectionThatClosesWithoutEndIsReportedAsLost() throws Exception {
        try (QueueFixture fixture = QueueFixture.inAndOut(2, 1, LONG_LINGER_MS);
                FakeProcess process = fixture.connect()) {
            process.sendRows(0, TYPE, row(1));
            process.hangUp();
            fixture.mailbox.yieldUntil(() -> fixture.lostCause != null);
            checkEqual(fixture.heard, List.of("connected", "(1, row 1)", "lost"));
            checkEqual(fixture.lostCause.getClass(), PeerLostException.class);
            check(!fixture.queue.isConnected(), "still connected");
        }
    }

    public static void aWriteThatWaitsForALostProcessFailsWhenNobodyElseFailsTheTask()
            throws Exception {
        try (QueueFixture fixture = QueueFixture.inAndOut(2, 1, LONG_LINGER_MS)) {
            fixture.connect().close();
            fixture.mailbox.yieldUntil(() -> fixture.lostCause != null);
            fixture.write(1);
            fixture.write(2);
            fixture.timers.advance(MemoryQueue.LOST_GRACE_MS);
            checkThrows(PeerLostException.class, () -> fixture.write(3), "60000 ms");
        }
    }

    public static void aWriteThatWaitsIsEndedByAnInterrupt() throws Exception {
        try (QueueFixture fixture = QueueFixture.inAndOut(2, 1, LONG_LINGER_MS)) {
            fixture.write(1);
            fixture.write(2);
            Thread.currentThread().interrupt();
            checkThrows(InterruptedException.class, () -> fixture.write(3));
        }
    }

    public static void aRoleWithoutInputMayConnectAgainAndGetsANewSegment() throws Exception {
        ExchangeSettings settings = QueueFixture.settings(2, 10, LONG_LINGER_MS);
        try (QueueFixture fixture = new QueueFixture(settings, null, TYPE)) {
            try (FakeProcess process = fixture.connect()) {
                process.sendRows(0, TYPE, row(1));
                fixture.mailbox.yield();
            }
            fixture.mailbox.yieldUntil(() -> fixture.lostCause != null);
            try (FakeProcess process = fixture.connect()) {
                ByteBuffer first = ByteBuffer.allocate(8);
                process.output().file().read(first, 0);
                checkEqual(first.getLong(0), 0L); // not what the former process has written
                process.sendRows(0, TYPE, row(2));
                process.send(Frame.of(FrameType.END, 0));
                fixture.mailbox.yield();
                fixture.mailbox.yield();
                checkEqual(process.receive(), Frame.of(FrameType.CREDIT, 0));
            }
            checkEqual(
                    fixture.heard,
                    List.of("connected", "(1, row 1)", "lost", "connected", "(2, row 2)", "end"));
        }
    }

    public static void aRoleWithoutInputMayConnectAgainAfterAProtocolError() throws Exception {
        ExchangeSettings settings = QueueFixture.settings(2, 10, LONG_LINGER_MS);
        try (QueueFixture fixture = new QueueFixture(settings, null, TYPE)) {
            try (FakeProcess process = fixture.connect()) {
                process.send(Frame.batch(9, 1, 1));
                fixture.mailbox.yieldUntil(() -> fixture.lostCause != null);
                checkEqual(process.receive() == null, true);
                try (FakeProcess next = fixture.connect()) {
                    next.sendRows(0, TYPE, row(2));
                    fixture.mailbox.yieldUntil(() -> fixture.heard.contains("(2, row 2)"));
                }
            }
        }
    }

    public static void aSecondProcessIsTurnedAwayWhileTheFirstLives() throws Exception {
        try (QueueFixture fixture = QueueFixture.inAndOut(2, 1, LONG_LINGER_MS);
                FakeProcess process = fixture.connect();
                FakeProcess second = new FakeProcess(fixture.socketPath)) {
            second.hello();
            checkEqual(second.receive() == null, true);
            fixture.write(1);
            checkEqual(process.receiveRows(TYPE), List.of("(1, row 1)"));
        }
    }

    public static void aProcessThatNeverReadsNeitherBlocksTheTaskNorFillsItsMemory()
            throws Exception {
        try (QueueFixture fixture = QueueFixture.inAndOut(2, 1, LONG_LINGER_MS);
                FakeProcess process = fixture.connect()) {
            for (int i = 0; i < 500_000; i++) {
                fixture.queue.writeWatermark(i);
            }
            fixture.queue.writeBarrier(1);
            Frame last = process.receive();
            for (Frame next = last; next.type() != FrameType.BARRIER; next = process.receive()) {
                check(next.value() >= last.value(), "out of order");
                last = next;
            }
            checkEqual(last.value(), 499_999L); // the latest one is never dropped
        }
    }

    public static void aProcessThatFloodsIsHeldBack() throws Exception {
        try (QueueFixture fixture = QueueFixture.inAndOut(2, 1, LONG_LINGER_MS);
                FakeProcess process = fixture.connect()) {
            int sent = 30_000;
            Thread flood =
                    new Thread(
                            () -> {
                                try {
                                    for (int i = 0; i < sent; i++) {
                                        process.send(Frame.of(FrameType.WATERMARK, i));
                                    }
                                } catch (java.io.IOException e) {
                                    throw new java.io.UncheckedIOException(e);
                                }
                            });
            flood.start();
            fixture.mailbox.awaitSteady();
            check(fixture.mailbox.size() <= 5_000, "mails: " + fixture.mailbox.size());
            check(flood.isAlive(), "nothing held the process back");
            fixture.mailbox.yieldUntil(() -> fixture.countOf("watermark") == sent);
            flood.join(10_000);
        }
    }

    public static void theNextProcessWaitsWhileTheEndOfTheFormerOneIsUnread() throws Exception {
        ExchangeSettings settings = QueueFixture.settings(2, 10, LONG_LINGER_MS);
        try (QueueFixture fixture = new QueueFixture(settings, null, TYPE)) {
            FakeProcess process = fixture.connect();
            process.sendBytes(watermarks(HELD_BACK));
            process.close();
            fixture.mailbox.awaitSteady();
            check(fixture.mailbox.size() < HELD_BACK, "mails: " + fixture.mailbox.size());
            try (FakeProcess next = new FakeProcess(fixture.socketPath)) {
                next.hello();
                awaitThatGuestsAreServed(fixture);
                check(!next.hasInput(), "the next process was answered before its turn");
                fixture.mailbox.yieldUntil(() -> fixture.lostCause != null);
                fixture.map(next);
                next.sendRows(0, TYPE, row(2));
                fixture.mailbox.yieldUntil(() -> fixture.heard.contains("(2, row 2)"));
            }
            checkEqual(fixture.countOf("watermark"), HELD_BACK);
            checkEqual(
                    fixture.heard.subList(HELD_BACK, fixture.heard.size()),
                    List.of("watermark " + (HELD_BACK - 1), "lost", "connected", "(2, row 2)"));
        }
    }

    public static void aSecondProcessIsTurnedAwayAlsoIfItHadToWait() throws Exception {
        try (QueueFixture fixture = QueueFixture.inAndOut(2, 1, LONG_LINGER_MS);
                FakeProcess process = fixture.connect()) {
            process.sendBytes(watermarks(HELD_BACK));
            fixture.mailbox.awaitSteady();
            try (FakeProcess second = new FakeProcess(fixture.socketPath)) {
                second.hello();
                awaitThatGuestsAreServed(fixture);
                fixture.mailbox.yieldUntil(() -> fixture.countOf("watermark") == HELD_BACK);
                checkEqual(second.receive() == null, true);
            }
            fixture.write(1);
            checkEqual(process.receiveRows(TYPE), List.of("(1, row 1)"));
            checkEqual(fixture.countOf("connected"), 1);
        }
    }

    public static void ofManyThatWaitForTheirTurnTheOldestIsTurnedAway() throws Exception {
        ExchangeSettings settings = QueueFixture.settings(2, 10, LONG_LINGER_MS);
        List<FakeProcess> waiting = new ArrayList<>();
        try (QueueFixture fixture = new QueueFixture(settings, null, TYPE)) {
            FakeProcess process = fixture.connect();
            process.sendBytes(watermarks(HELD_BACK));
            process.close();
            fixture.mailbox.awaitSteady();
            for (int i = 0; i <= QueueIo.MAX_GUESTS; i++) {
                waiting.add(new FakeProcess(fixture.socketPath));
                waiting.get(i).hello();
                awaitThatGuestsAreServed(fixture);
            }
            checkEqual(waiting.get(0).receive() == null, true);
            fixture.mailbox.yieldUntil(() -> fixture.lostCause != null);
            fixture.map(waiting.get(1));
            checkEqual(waiting.get(2).receive() == null, true);
        } finally {
            for (FakeProcess each : waiting) {
                each.close();
            }
        }
    }

    public static void whoSaysNoHelloIsTurnedAwayAndTheProcessIsServed() throws Exception {
        String hello = "{\"attempt\": 1, \"pid\": 42}";
        List<byte[]> nonsense =
                List.of(
                        "GET / HTTP/1.1\r\n\r\n".getBytes(StandardCharsets.US_ASCII),
                        bytes(99, 0, 0),
                        bytes(FrameType.HELLO.code(), 1 << 20, Handshake.VERSION),
                        encoded(Frame.text(FrameType.HELLO, Handshake.VERSION, "not JSON")),
                        encoded(Frame.text(FrameType.HELLO, Handshake.VERSION, "{}")),
                        encoded(Frame.text(FrameType.HELLO, 2, "{\"attempt\": \"1\", \"pid\": 42}")),
                        encoded(Frame.of(FrameType.END, 0)));
        try (QueueFixture fixture = QueueFixture.inAndOut(2, 1, LONG_LINGER_MS)) {
            for (byte[] each : nonsense) {
                try (FakeProcess guest = new FakeProcess(fixture.socketPath)) {
                    guest.sendBytes(each);
                    checkEqual(guest.receive() == null, true);
                }
            }
            try (FakeProcess half = new FakeProcess(fixture.socketPath)) {
                half.sendBytes(Arrays.copyOf(encoded(Frame.text(FrameType.HELLO, 1, hello)), 20));
            }
            try (FakeProcess process = fixture.connect()) {
                fixture.write(1);
                checkEqual(process.receiveRows(TYPE), List.of("(1, row 1)"));
                checkEqual(fixture.heard, List.of("connected"));
            }
        }
    }

    public static void connectionsThatSayNothingDoNotKeepTheProcessAway() throws Exception {
        List<FakeProcess> silent = new ArrayList<>();
        try (QueueFixture fixture = QueueFixture.inAndOut(2, 1, LONG_LINGER_MS)) {
            for (int i = 0; i < 3 * QueueIo.MAX_GUESTS; i++) {
                silent.add(new FakeProcess(fixture.socketPath));
            }
            try (FakeProcess process = fixture.connect()) {
                fixture.write(1);
                checkEqual(process.receiveRows(TYPE), List.of("(1, row 1)"));
                checkEqual(silent.get(0).receive() == null, true); // the oldest made room
                check(!silent.get(silent.size() - 1).hasInput(), "the last one was told something");
            }
            fixture.queue.close();
            checkEqual(silent.get(silent.size() - 1).receive() == null, true);
        } finally {
            for (FakeProcess each : silent) {
                each.close();
            }
        }
    }

    public static void aHelloMayComeInParts() throws Exception {
        byte[] hello = encoded(Frame.text(FrameType.HELLO, 1, "{\"attempt\": 1, \"pid\": 42}"));
        try (QueueFixture fixture = QueueFixture.inAndOut(2, 1, LONG_LINGER_MS);
                FakeProcess process = new FakeProcess(fixture.socketPath)) {
            for (byte each : hello) {
                process.sendBytes(new byte[] {each});
            }
            fixture.mailbox.yield();
            fixture.mailbox.yield();
            checkEqual(process.receive().type(), FrameType.OPEN);
        }
    }

    public static void closeEndsTheThreadAndLeavesNoFile() throws Exception {
        Thread io;
        Path input;
        try (QueueFixture fixture = QueueFixture.inAndOut(2, 1, LONG_LINGER_MS);
                FakeProcess process = new FakeProcess(fixture.socketPath)) {
            process.hello(); // half way through the greeting: the segments can still be opened
            fixture.mailbox.yield();
            fixture.mailbox.yield();
            input = process.offeredPath("input");
            check(Files.exists(input), "no segment");
            io = findThread("headrace-io job test-0");
            check(io != null, "there is no such thread");
            fixture.queue.write(row(1, "x".repeat(100_000)), false, 0);
            fixture.queue.close();
            check(!io.isAlive(), "the thread lives");
            check(!Files.exists(input), "the segment is left");
            checkEqual(process.receive() == null, true);
            fixture.queue.close();
        }
    }

    private static Thread findThread(String name) {
        return Thread.getAllStackTraces().keySet().stream()
                .filter(thread -> thread.getName().equals(name))
                .findAny()
                .orElse(null);
    }

    /** What makes the queue stop to read: more frames than it takes before they are handled. */
    private static byte[] watermarks(int count) {
        ByteBuffer bytes = ByteBuffer.allocate(count * Frame.HEADER_BYTES);
        for (int i = 0; i < count; i++) {
            bytes.put(encoded(Frame.of(FrameType.WATERMARK, i)));
        }
        return bytes.array();
    }

    /** Returns once the IO thread has turned a guest away, and so has served those before it. */
    private static void awaitThatGuestsAreServed(QueueFixture fixture) throws Exception {
        try (FakeProcess guest = new FakeProcess(fixture.socketPath)) {
            guest.sendBytes(bytes(99, 0, 0));
            checkEqual(guest.receive() == null, true);
        }
    }

    static byte[] encoded(Frame frame) {
        return frame.encode().array();
    }

    static byte[] bytes(int type, int payloadBytes, long value) {
        ByteBuffer bytes = Frame.littleEndian(ByteBuffer.allocate(Frame.HEADER_BYTES));
        return bytes.putInt(type).putInt(payloadBytes).putLong(value).array();
    }
}
