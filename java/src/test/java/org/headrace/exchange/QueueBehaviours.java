package org.headrace.exchange;

import static org.headrace.exchange.Behaviours.check;
import static org.headrace.exchange.Behaviours.checkEqual;
import static org.headrace.exchange.Behaviours.checkThrows;
import static org.headrace.exchange.QueueFixture.TYPE;
import static org.headrace.exchange.QueueFixture.row;

import java.nio.channels.FileChannel;
import java.nio.file.DirectoryStream;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.List;

/** The memory queue with a process that plays its part. */
public final class QueueBehaviours {

    private static final long LONG_LINGER_MS = 60_000;

    private static final int OF_THE_PROCESS = 2; // FakeProcess holds both segments open

    private QueueBehaviours() {}

    public static void rowsWrittenBeforeTheProcessConnectsReachIt() throws Exception {
        try (QueueFixture fixture = QueueFixture.inAndOut(2, 2, LONG_LINGER_MS)) {
            fixture.write(1);
            fixture.write(2);
            fixture.write(3);
            fixture.queue.flush();
            try (FakeProcess process = fixture.connect()) {
                checkEqual(process.receiveRows(TYPE), List.of("(1, row 1)", "(2, row 2)"));
                checkEqual(process.receiveRows(TYPE), List.of("(3, row 3)"));
            }
            checkEqual(fixture.queue.rowsIn(), 3L);
        }
    }

    public static void segmentsCannotBeOpenedAnyMoreOnceTheProcessHasMappedThem() throws Exception {
        try (QueueFixture fixture = QueueFixture.inAndOut(2, 2, LONG_LINGER_MS);
                FakeProcess process = fixture.connect()) {
            check(!Files.exists(process.input().path()), "the input segment is still open");
            check(!Files.exists(process.output().path()), "the output segment is still open");
            fixture.write(1);
            fixture.queue.flush();
            checkEqual(process.receiveRows(TYPE), List.of("(1, row 1)"));
        }
    }

    public static void aWriteWithoutFreeSlotEmitsWhatTheProcessSendsAndGoesOnWithItsCredit()
            throws Exception {
        try (QueueFixture fixture = QueueFixture.inAndOut(2, 1, LONG_LINGER_MS);
                FakeProcess process = fixture.connect()) {
            fixture.write(1);
            fixture.write(2);
            process.receiveRows(TYPE);
            process.sendRows(0, TYPE, row(10), row(11));
            process.sendRows(1, TYPE, row(12));
            process.send(Frame.of(FrameType.WATERMARK, 7));
            process.sendCredit();
            fixture.write(3);
            checkEqual(
                    fixture.heard,
                    List.of(
                            "connected",
                            "(10, row 10)",
                            "(11, row 11)",
                            "(12, row 12)",
                            "watermark 7"));
            check(fixture.blocked.get() > 0, "the wait did not count as back-pressure");
            checkEqual(process.receiveRows(TYPE), List.of("(2, row 2)"));
            checkEqual(process.receive(), Frame.of(FrameType.CREDIT, 0));
            checkEqual(process.receive(), Frame.of(FrameType.CREDIT, 1));
            checkEqual(process.receiveRows(TYPE), List.of("(3, row 3)"));
            checkEqual(fixture.queue.rowsOut(), 3L);
        }
    }

    public static void aBatchLeavesWhenItsFirstRowHasLingered() throws Exception {
        try (QueueFixture fixture = QueueFixture.inAndOut(4, 100, 10);
                FakeProcess process = fixture.connect()) {
            fixture.write(1);
            fixture.timers.advance(9);
            fixture.write(2);
            checkEqual(fixture.queue.rowsIn(), 0L);
            fixture.timers.advance(1);
            checkEqual(process.receiveRows(TYPE), List.of("(1, row 1)", "(2, row 2)"));
            fixture.timers.advance(100);
            checkEqual(fixture.timers.pending(), 0);
        }
    }

    public static void theLingerTimerOfABatchThatLeftDoesNotShortenTheNextOne() throws Exception {
        try (QueueFixture fixture = QueueFixture.inAndOut(4, 100, 10);
                FakeProcess process = fixture.connect()) {
            fixture.write(1);
            fixture.timers.advance(6);
            fixture.queue.flush();
            fixture.write(2);
            fixture.timers.advance(6);
            checkEqual(fixture.queue.rowsIn(), 1L);
            fixture.timers.advance(4);
            checkEqual(fixture.queue.rowsIn(), 2L);
            checkEqual(process.receiveRows(TYPE), List.of("(1, row 1)"));
        }
    }

    public static void withoutLingerARowLeavesAtOnceWhenTheProcessIsFree() throws Exception {
        try (QueueFixture fixture = QueueFixture.inAndOut(4, 100, 0);
                FakeProcess process = fixture.connect()) {
            fixture.write(1);
            checkEqual(process.receiveRows(TYPE), List.of("(1, row 1)"));
            fixture.write(2);
            fixture.write(3);
            process.sendCredit();
            fixture.mailbox.yield();
            checkEqual(fixture.queue.rowsIn(), 1L); // it is at work on the first
            process.send(Frame.of(FrameType.IDLE, 1));
            fixture.mailbox.yield();
            checkEqual(process.receiveRows(TYPE), List.of("(2, row 2)", "(3, row 3)"));
        }
    }

    public static void withoutLingerAProcessThatKeepsItsBatchesStillGetsTheNextRow()
            throws Exception {
        try (QueueFixture fixture = QueueFixture.inAndOut(4, 100, 0);
                FakeProcess process = fixture.connect()) {
            for (int i = 1; i <= 4; i++) {
                fixture.write(i);
                checkEqual(process.receiveRows(TYPE), List.of("(" + i + ", row " + i + ")"));
                process.send(Frame.of(FrameType.IDLE, i));
                fixture.mailbox.yield();
            }
        }
    }

    public static void withoutLingerRowsWaitForAProcessThatHasNotConnected() throws Exception {
        try (QueueFixture fixture = QueueFixture.inAndOut(4, 100, 0)) {
            fixture.write(1);
            fixture.write(2);
            try (FakeProcess process = fixture.connect()) {
                checkEqual(process.receiveRows(TYPE), List.of("(1, row 1)", "(2, row 2)"));
            }
        }
    }

    public static void watermarksBarriersAndEndStayBehindTheRowsBeforeThem() throws Exception {
        try (QueueFixture fixture = QueueFixture.inAndOut(4, 100, LONG_LINGER_MS)) {
            fixture.write(1);
            fixture.queue.writeWatermark(5);
            fixture.queue.writeWatermark(6);
            fixture.write(2);
            check(fixture.queue.writeBarrier(9), "no acknowledgement is expected");
            fixture.queue.writeBarrier(10);
            fixture.write(3);
            fixture.queue.writeEnd();
            try (FakeProcess process = fixture.connect()) {
                checkEqual(process.receiveRows(TYPE), List.of("(1, row 1)"));
                checkEqual(process.receive().value(), 6L); // 5 was replaced while it waited
                checkEqual(process.receiveRows(TYPE), List.of("(2, row 2)"));
                checkEqual(process.receive(), Frame.of(FrameType.BARRIER, 9));
                checkEqual(process.receive(), Frame.of(FrameType.BARRIER, 10));
                checkEqual(process.receiveRows(TYPE), List.of("(3, row 3)"));
                checkEqual(process.receive().type(), FrameType.END);
                process.send(Frame.of(FrameType.BARRIER_ACK, 9));
                fixture.mailbox.yield();
                process.send(Frame.of(FrameType.DECLINE, 10));
                fixture.mailbox.yield();
                checkEqual(fixture.heard, List.of("connected", "acknowledged 9", "declined 10"));
            }
        }
    }

    public static void afterTheProcessSaidEndRowsAreDroppedAndCounted() throws Exception {
        try (QueueFixture fixture = QueueFixture.inAndOut(2, 1, LONG_LINGER_MS);
                FakeProcess process = fixture.connect()) {
            fixture.write(1);
            fixture.write(2);
            process.sendRows(0, TYPE, row(10));
            process.send(Frame.of(FrameType.END, 0));
            process.hangUp();
            fixture.write(3); // waits for a slot, and learns of the end
            fixture.write(4);
            checkEqual(fixture.heard, List.of("connected", "(10, row 10)", "end"));
            checkEqual(fixture.queue.discardedRows(), 2L);
            check(fixture.queue.isProcessDone(), "not done");
            check(!fixture.queue.writeBarrier(1), "an acknowledgement is expected");
            fixture.mailbox.yield(); // the closed connection
            checkEqual(fixture.lostCause == null, true);
        }
    }

    public static void aRowLargerThanASlotTravelsInAFileOfItsOwn() throws Exception {
        String large = "x".repeat(100_000);
        try (QueueFixture fixture = QueueFixture.inAndOut(2, 10, LONG_LINGER_MS);
                FakeProcess process = fixture.connect()) {
            fixture.write(1);
            fixture.queue.write(row(2, large), false, 0);
            checkEqual(process.receiveRows(TYPE), List.of("(1, row 1)"));
            receiveOversized(process, "(2, " + large + ")");
            checkEqual(openSegments(), 1L);
            process.send(Frame.of(FrameType.OVERSIZE_CREDIT, 0));
            fixture.queue.write(row(3, large), false, 0); // waits for the credit
            checkEqual(openSegments(), 1L); // the first one is closed
            receiveOversized(process, "(3, " + large + ")");
            fixture.write(4);
            fixture.queue.flush();
            checkEqual(process.receiveRows(TYPE), List.of("(4, row 4)"));
        }
    }

    private static void receiveOversized(FakeProcess process, String row) throws Exception {
        Frame frame = process.receive();
        checkEqual(frame.type(), FrameType.OVERSIZE);
        try (FileChannel file = FileChannel.open(Path.of(frame.text()), StandardOpenOption.READ)) {
            checkEqual(FakeProcess.rows(file, 0, (int) frame.value(), TYPE), List.of(row));
        }
    }

    /** Files of segments that this JVM holds open; those of the process that a test plays included. */
    private static long openSegments() throws Exception {
        long open = 0;
        try (DirectoryStream<Path> descriptors = Files.newDirectoryStream(Path.of("/proc/self/fd"))) {
            for (Path descriptor : descriptors) {
                try {
                    boolean isSegment = Files.readSymbolicLink(descriptor).toString().contains("/headrace-");
                    open += isSegment ? 1 : 0;
                } catch (NoSuchFileException e) {
                    continue; // closed by another thread
                }
            }
        }
        return open - OF_THE_PROCESS;
    }

    public static void anOversizedRowOfTheProcessIsEmittedAndItsFileGivenBack() throws Exception {
        try (QueueFixture fixture = QueueFixture.inAndOut(2, 10, LONG_LINGER_MS);
                FakeProcess process = fixture.connect()) {
            byte[] message = FakeProcess.message(TYPE, row(1, "y".repeat(70_000)));
            Path file = fixture.directory.resolve("large");
            Files.write(file, message);
            process.send(Frame.text(FrameType.OVERSIZE, message.length, process.offer(file).toString()));
            fixture.mailbox.yield();
            checkEqual(fixture.heard.get(1), "(1, " + "y".repeat(70_000) + ")");
            checkEqual(process.receive().type(), FrameType.OVERSIZE_CREDIT);
            Files.delete(file);
        }
    }

    public static void aRowOverTheLimitIsAnErrorThatNamesTheSetting() throws Exception {
        try (QueueFixture fixture = QueueFixture.inAndOut(2, 10, LONG_LINGER_MS)) {
            checkThrows(
                    RowTooLargeException.class,
                    () -> fixture.queue.write(row(1, "z".repeat(1 << 20)), false, 0),
                    "`exchange.max_row_bytes`=1048576");
        }
    }

    public static void aLimitBelowTheSlotSizeHoldsToo() throws Exception {
        ExchangeSettings settings = new ExchangeSettings(2, 1 << 16, 10, LONG_LINGER_MS, 4096);
        try (QueueFixture fixture = new QueueFixture(settings, TYPE, null)) {
            fixture.write(1);
            checkThrows(
                    RowTooLargeException.class,
                    () -> fixture.queue.write(row(2, "z".repeat(5000)), false, 0),
                    "`exchange.max_row_bytes`=4096");
        }
    }
}
