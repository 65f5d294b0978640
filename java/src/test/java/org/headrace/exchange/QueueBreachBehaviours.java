package org.headrace.exchange;

import static org.headrace.exchange.Behaviours.check;
import static org.headrace.exchange.Behaviours.checkEqual;
import static org.headrace.exchange.QueueFailureBehaviours.bytes;
import static org.headrace.exchange.QueueFailureBehaviours.encoded;
import static org.headrace.exchange.QueueFixture.TYPE;
import static org.headrace.exchange.QueueFixture.row;

import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;

/** What ends the connection of a process that has said HELLO: docs/exchange.md, section 3. */
public final class QueueBreachBehaviours {

    private static final long LONG_LINGER_MS = 60_000;

    private QueueBreachBehaviours() {}

    public static void aFrameOfUnknownTypeClosesTheConnection() throws Exception {
        checkRefused(bytes(99, 0, 0), "unknown type 99");
    }

    public static void aPayloadOverTheLimitClosesTheConnection() throws Exception {
        checkRefused(bytes(8, Frame.MAX_PAYLOAD_OF_PROCESS_BYTES + 1, 0), "8193 bytes of payload");
    }

    public static void aSlotOutOfRangeClosesTheConnection() throws Exception {
        checkRefused(encoded(Frame.batch(7, 100, 1)), "slot 7 of 2");
    }

    public static void aMessageLongerThanItsSlotClosesTheConnection() throws Exception {
        checkRefused(encoded(Frame.batch(0, 1 << 20, 1)), "too long");
    }

    public static void aSlotWithoutAMessageClosesTheConnection() throws Exception {
        checkRefused(encoded(Frame.batch(0, 100, 1)), "no continuation marker");
    }

    public static void aCreditForASlotThatIsFreeClosesTheConnection() throws Exception {
        checkRefused(encoded(Frame.of(FrameType.CREDIT, 0)), "credit for slot 0");
        checkRefused(encoded(Frame.of(FrameType.OVERSIZE_CREDIT, 0)), "oversized row");
    }

    public static void moreBatchesTakenThanSentCloseTheConnection() throws Exception {
        checkRefused(encoded(Frame.of(FrameType.IDLE, 1)), "1 batches taken of 0");
    }

    public static void aFrameThatOnlyTheJvmSendsClosesTheConnection() throws Exception {
        checkRefused(encoded(Frame.of(FrameType.BARRIER, 0)), "which only the JVM sends");
        checkRefused(encoded(Frame.of(FrameType.MAPPED, 0)), "out of order");
    }

    public static void anOversizedFileThatIsShorterThanSaidClosesTheConnection() throws Exception {
        Path file = Files.createTempFile("hr", "short");
        try (FileChannel open = FileChannel.open(file)) {
            checkEqual(open.size(), 0L);
            checkRefused(
                    encoded(Frame.text(FrameType.OVERSIZE, 100, Segment.pathOfOpenFile(file).toString())),
                    "0 bytes, not 100");
        } finally {
            Files.deleteIfExists(file);
        }
    }

    public static void anOversizedMessageOverTheLimitOfARowClosesTheConnection() throws Exception {
        checkRefused(
                encoded(Frame.text(FrameType.OVERSIZE, (1 << 20) + 1, "/proc/" + FakeProcess.PID + "/fd/0")),
                "an oversized message of 1048577 bytes");
    }

    public static void aFileThatTheProcessDoesNotHoldOpenClosesTheConnection() throws Exception {
        Path file = Files.createTempFile("hr", "other");
        try {
            Files.write(file, new byte[100]);
            String open = "/proc/" + FakeProcess.PID + "/fd/";
            for (String path : List.of(file.toString(), "/proc/1/fd/1", open + "..", open + "1/../1", "", "fd")) {
                String why = "is no open file of process " + FakeProcess.PID;
                checkRefused(encoded(Frame.text(FrameType.OVERSIZE, 100, path)), why);
                if (!path.isEmpty()) {
                    checkRefused(encoded(Frame.barrierAck(4, new StateOffer(1, 100, Path.of(path)))), why);
                }
            }
            checkRefused(encoded(Frame.text(FrameType.OVERSIZE, 100, "/\0")), "what is no path");
        } finally {
            Files.delete(file);
        }
    }

    public static void aBarrierIsAnsweredOnceAndInItsTurn() throws Exception {
        for (FrameType answer : List.of(FrameType.BARRIER_ACK, FrameType.DECLINE)) {
            for (int wrong : List.of(3, 4, 7)) { // over by then, answered, and never sent
                try (QueueFixture fixture = QueueFixture.inAndOut(2, 1, LONG_LINGER_MS);
                        FakeProcess process = fixture.connect()) {
                    for (int id : List.of(3, 4, 6)) {
                        fixture.queue.writeBarrier(id);
                    }
                    process.send(Frame.of(FrameType.BARRIER_ACK, 4));
                    process.send(Frame.of(answer, wrong));
                    fixture.mailbox.yieldUntil(() -> fixture.lostCause != null);
                    checkEqual(fixture.heard, List.of("connected", "acknowledged 4", "lost"));
                    String text = fixture.lostCause.getMessage();
                    check(text.contains("barrier " + wrong + ", which waits for none"), text);
                }
            }
        }
    }

    public static void aProcessThatSendsAndTakesNothingIsCutOff() throws Exception {
        try (QueueFixture fixture = QueueFixture.inAndOut(2, 1, LONG_LINGER_MS);
                FakeProcess process = fixture.connect()) {
            process.sendRows(0, TYPE, row(1));
            byte[] again = encoded(Frame.batch(0, FakeProcess.message(TYPE, row(1)).length, 1));
            for (int i = 0; i < 200_000 && fixture.lostCause == null; i++) {
                process.sendBytes(again);
                fixture.mailbox.tryYield();
            }
            fixture.mailbox.yieldUntil(() -> fixture.lostCause != null);
            check(fixture.lostCause.getMessage().contains("has not taken"), fixture.lostCause.getMessage());
        }
    }

    private static void checkRefused(byte[] bytes, String why) throws Exception {
        try (QueueFixture fixture = QueueFixture.inAndOut(2, 1, LONG_LINGER_MS);
                FakeProcess process = fixture.connect()) {
            process.sendBytes(bytes);
            fixture.mailbox.yieldUntil(() -> fixture.lostCause != null);
            checkEqual(fixture.lostCause.getClass(), MalformedMessageException.class);
            check(fixture.lostCause.getMessage().contains(why), fixture.lostCause.getMessage());
            checkEqual(process.receive() == null, true);
        }
    }
}
