package org.headrace.exchange;

import static org.headrace.exchange.Behaviours.check;
import static org.headrace.exchange.Behaviours.checkEqual;
import static org.headrace.exchange.Behaviours.checkThrows;

import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.EOFException;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.nio.file.attribute.PosixFilePermissions;
import java.util.HexFormat;
import java.util.List;
import java.util.Random;

/** States of a process: in acknowledgements, in files that outlive it, and in copies. */
public final class StateBehaviours {

    private static final long LONG_LINGER_MS = 60_000;
    private static final int LARGE_BYTES = 700_001; // more than two pieces

    private StateBehaviours() {}

    public static void theFramesHaveTheBytesOfTheDocument() {
        Frame ack = Frame.barrierAck(258, new StateOffer(3, 4096, Path.of("/é")));
        checkHex(ack, "0a0000000f0000000201000000000000" + "03000000" + "0010000000000000" + "2fc3a9");
        checkEqual(Frame.decode(ack.encode(), Frame.MAX_PAYLOAD_BYTES).state(), new StateOffer(3, 4096, Path.of("/é")));
        check(Frame.of(FrameType.BARRIER_ACK, 258).state() == null, "a state out of nothing");
        checkHex(Frame.of(FrameType.STATE_CREDIT, 3), "0d000000000000000300000000000000");
        checkHex(Frame.of(FrameType.ABORT, 258), "0e000000000000000201000000000000");
        checkHex(Frame.of(FrameType.DECLINE, 258), "0f000000000000000201000000000000");
        checkHex(Frame.of(FrameType.COMPLETE, 258), "10000000000000000201000000000000");
    }

    private static void checkHex(Frame frame, String expected) {
        byte[] bytes = new byte[frame.encode().remaining()];
        frame.encode().get(bytes);
        checkEqual(HexFormat.of().formatHex(bytes), expected);
    }

    public static void aStateStaysReadableWhenItsFileAndItsProcessAreGone() throws Exception {
        byte[] content = noise(LARGE_BYTES);
        try (QueueFixture fixture = QueueFixture.inAndOut(2, 2, LONG_LINGER_MS);
                FakeProcess process = fixture.connect()) {
            Path file = fixture.directory.resolve("state");
            Files.write(file, content);
            fixture.queue.writeBarrier(4);
            process.send(Frame.barrierAck(4, new StateOffer(2, LARGE_BYTES - 1, process.offer(file))));
            fixture.mailbox.yieldUntil(() -> fixture.states.size() == 1);
            checkEqual(fixture.heard, List.of("connected", "acknowledged 4"));
            Files.delete(file);
            process.hangUp();
            try (StateFile state = fixture.states.get(0)) {
                checkEqual(state.bytes(), LARGE_BYTES - 1L);
                byte[] read = contentOf(state);
                checkEqual(read.length, LARGE_BYTES - 1);
                checkEqual(java.util.Arrays.mismatch(read, content), LARGE_BYTES - 1);
            }
        }
    }

    public static void aFileThatIsGivenBackIsNamedInTheCreditAlsoAfterEnd() throws Exception {
        try (QueueFixture fixture = QueueFixture.inAndOut(2, 2, LONG_LINGER_MS);
                FakeProcess process = fixture.connect()) {
            Path file = fixture.directory.resolve("state");
            Files.write(file, noise(10));
            Path offered = process.offer(file);
            fixture.queue.writeBarrier(4);
            process.send(Frame.barrierAck(4, new StateOffer(7, 10, offered)));
            process.send(Frame.barrierAck(Long.MAX_VALUE, new StateOffer(8, 10, offered)));
            process.send(Frame.of(FrameType.END, 0));
            fixture.mailbox.yieldUntil(() -> fixture.heard.contains("end"));
            Files.delete(file);
            for (StateFile state : fixture.states) {
                state.close();
                fixture.queue.giveBack(state);
            }
            checkEqual(process.receive(), Frame.of(FrameType.BARRIER, 4));
            checkEqual(process.receive(), Frame.of(FrameType.STATE_CREDIT, 7));
            checkEqual(process.receive(), Frame.of(FrameType.STATE_CREDIT, 8));
        }
    }

    public static void anAbortComesBehindItsBarrier() throws Exception {
        try (QueueFixture fixture = QueueFixture.inAndOut(2, 2, LONG_LINGER_MS);
                FakeProcess process = fixture.connect()) {
            fixture.queue.writeBarrier(5);
            fixture.queue.writeAbort(5);
            checkEqual(process.receive(), Frame.of(FrameType.BARRIER, 5));
            checkEqual(process.receive(), Frame.of(FrameType.ABORT, 5));
        }
    }

    public static void aCompletedCheckpointIsToldUntilTheProcessHasEnded() throws Exception {
        try (QueueFixture fixture = QueueFixture.inAndOut(2, 2, LONG_LINGER_MS);
                FakeProcess process = fixture.connect()) {
            fixture.queue.writeComplete(5);
            checkEqual(process.receive(), Frame.of(FrameType.COMPLETE, 5));
            process.send(Frame.of(FrameType.END, 0));
            fixture.mailbox.yieldUntil(() -> fixture.heard.contains("end"));
            fixture.queue.writeComplete(6);
            check(!process.hasInput(), "a process that has ended its part was told");
        }
    }

    public static void aFileThatIsNotThereEndsTheConnection() throws Exception {
        checkRefused(4, 1, 10, Path.of("/proc/" + FakeProcess.PID + "/fd/999999999"), "no state file");
    }

    public static void aStateThatIsNotOneOfTheFilesOfAnAnswerEndsTheConnection() throws Exception {
        Path file = Files.createTempFile("hr", "state");
        try (FileChannel open = FileChannel.open(file, StandardOpenOption.READ, StandardOpenOption.WRITE)) {
            open.write(ByteBuffer.allocate(10));
            Path offered = Segment.pathOfOpenFile(file);
            checkRefused(-4, 1, 10, offered, "a state with the marker -4");
            checkRefused(4, 1, 1L << 40, offered, "a state file of 10 bytes, not 1099511627776");
            checkRefused(4, 1, 0, offered, "state file 1 of 0 bytes");
            checkRefused(4, -1, 10, offered, "state file -1 of 10 bytes");
            checkRefused(5, 1, 10, offered, "barrier 5, which waits for none");
        } finally {
            Files.delete(file);
        }
    }

    private static void checkRefused(long barrier, int number, long bytes, Path path, String why) throws Exception {
        try (QueueFixture fixture = QueueFixture.inAndOut(2, 2, LONG_LINGER_MS);
                FakeProcess process = fixture.connect()) {
            fixture.queue.writeBarrier(4);
            fixture.queue.writeBarrier(-4);
            process.send(Frame.barrierAck(barrier, new StateOffer(number, bytes, path)));
            fixture.mailbox.yieldUntil(() -> fixture.heard.contains("lost"));
            check(fixture.lostCause instanceof MalformedMessageException, "lost by " + fixture.lostCause);
            check(fixture.lostCause.getMessage().contains(why), fixture.lostCause.getMessage());
            checkEqual(process.receive(), Frame.of(FrameType.BARRIER, 4));
            checkEqual(process.receive(), Frame.of(FrameType.BARRIER, -4));
            check(process.receive() == null, "the connection is open");
        }
    }

    public static void aCopyHasNoNameAndIsForItsOwnerOnly() throws Exception {
        byte[] content = noise(LARGE_BYTES);
        Path directory = Files.createTempDirectory("hr");
        try (StateFile state =
                StateFile.copy(new ByteArrayInputStream(content), LARGE_BYTES - 1, List.of(directory))) {
            checkEqual(directory.toFile().list().length, 0);
            check(state.path().startsWith("/proc/" + ProcessHandle.current().pid()), "it is " + state.path());
            checkEqual(PosixFilePermissions.toString(Files.getPosixFilePermissions(state.path())), "rw-------");
            byte[] seen = Files.readAllBytes(state.path()); // as the process does
            checkEqual(java.util.Arrays.mismatch(seen, content), LARGE_BYTES - 1);
            checkEqual(java.util.Arrays.mismatch(contentOf(state), content), LARGE_BYTES - 1);
        } finally {
            Files.delete(directory);
        }
    }

    public static void aCheckpointThatEndsEarlyIsAnError() throws Exception {
        Path directory = Files.createTempDirectory("hr");
        try {
            checkThrows(
                    EOFException.class,
                    () -> StateFile.copy(new ByteArrayInputStream(noise(9)), 10, List.of(directory)),
                    "1 bytes before the end");
            checkEqual(directory.toFile().list().length, 0);
        } finally {
            Files.delete(directory);
        }
    }

    public static void withoutRoomTheErrorNamesEveryDirectoryAndTheSetting() throws Exception {
        Path directory = Files.createTempDirectory("hr");
        try {
            checkThrows(
                    ExchangeException.class,
                    () ->
                            StateFile.copy(
                                    new ByteArrayInputStream(noise(9)),
                                    1L << 60,
                                    List.of(directory, Path.of("/proc/nowhere"))),
                    directory.toString(),
                    "/proc/nowhere",
                    "`io.tmp.dirs`",
                    String.valueOf(1L << 60));
        } finally {
            Files.delete(directory);
        }
    }

    public static void anInterruptWhileItIsReadDoesNotCloseItForOthers() throws Exception {
        byte[] content = noise(100);
        Path directory = Files.createTempDirectory("hr");
        try (StateFile state = StateFile.copy(new ByteArrayInputStream(content), 100, List.of(directory))) {
            Thread.currentThread().interrupt();
            contentOf(state);
            check(Thread.interrupted(), "the interrupt is lost");
            checkEqual(java.util.Arrays.mismatch(contentOf(state), content), -1);
        } finally {
            Files.delete(directory);
        }
    }

    private static byte[] contentOf(StateFile state) throws IOException {
        ByteArrayOutputStream content = new ByteArrayOutputStream();
        state.writeTo(content);
        return content.toByteArray();
    }

    private static byte[] noise(int bytes) {
        byte[] noise = new byte[bytes];
        new Random(7).nextBytes(noise);
        return noise;
    }
}
