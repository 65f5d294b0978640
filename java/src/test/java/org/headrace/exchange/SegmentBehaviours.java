package org.headrace.exchange;

import static org.headrace.exchange.Behaviours.check;
import static org.headrace.exchange.Behaviours.checkEqual;
import static org.headrace.exchange.Behaviours.checkThrows;

import org.apache.flink.core.memory.MemorySegment;

import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.List;

/** Shared memory: how it is made, and that it is gone afterwards. */
public final class SegmentBehaviours {

    private static final int SLOT_BYTES = 1 << 16;

    private SegmentBehaviours() {}

    public static void aSegmentIsWrittenWholeAndReadableByItsOwnerOnly() throws Exception {
        Path directory = Files.createTempDirectory("hr");
        try (Segment segment = Segment.create(List.of(directory), 4, SLOT_BYTES)) {
            Process stat =
                    new ProcessBuilder("stat", "-L", "-c", "%a %s %b %B", segment.path().toString())
                            .start();
            try (BufferedReader out =
                    new BufferedReader(new InputStreamReader(stat.getInputStream()))) {
                String[] fields = out.readLine().split(" ");
                checkEqual(fields[0], "600");
                checkEqual(Long.parseLong(fields[1]), 4L * SLOT_BYTES);
                long allocated = Long.parseLong(fields[2]) * Long.parseLong(fields[3]);
                check(allocated >= 4L * SLOT_BYTES, "only " + allocated + " bytes are allocated");
            }
        }
        Files.delete(directory); // it is empty
    }

    public static void aSegmentHasNoNameThatItsCreatorCouldLeaveBehind() throws Exception {
        Path directory = Files.createTempDirectory("hr");
        try (Segment segment = Segment.create(List.of(directory), 2, SLOT_BYTES)) {
            Files.delete(directory); // it is empty
            segment.slot(1).putLong(0, 7);
            try (FileChannel file = FileChannel.open(segment.path(), StandardOpenOption.READ)) {
                ByteBuffer first = ByteBuffer.allocate(8).order(ByteOrder.nativeOrder());
                file.read(first, SLOT_BYTES);
                checkEqual(first.getLong(0), 7L);
            }
        }
    }

    public static void slotsAreSeparateAndLiveOnWithoutTheFile() throws Exception {
        Path directory = Files.createTempDirectory("hr");
        try (Segment segment = Segment.create(List.of(directory), 2, SLOT_BYTES)) {
            segment.withdraw();
            Files.delete(directory);
            segment.slot(0).putLong(SLOT_BYTES - 8, 1);
            segment.slot(1).putLong(0, 2);
            checkEqual(segment.slot(0).getLong(SLOT_BYTES - 8), 1L);
            checkThrows(
                    IndexOutOfBoundsException.class, () -> segment.slot(0).putLong(SLOT_BYTES, 3));
            checkEqual(segment.slot(1).getLong(0), 2L);
        }
    }

    public static void useAfterCloseThrows() throws Exception {
        Segment segment =
                Segment.create(Segment.directories(List.of(Path.of("/tmp"))), 2, SLOT_BYTES);
        MemorySegment slot = segment.slot(0);
        segment.close();
        segment.close();
        checkThrows(IllegalStateException.class, () -> slot.putInt(0, 1));
        checkThrows(IllegalStateException.class, () -> slot.get(0));
        check(!Files.exists(segment.path()), "the file is left");
    }

    public static void aDirectoryThatCannotTakeItIsSkipped() throws Exception {
        Path directory = Files.createTempDirectory("hr");
        Path missing = directory.resolve("missing");
        try (Segment segment = Segment.create(List.of(missing, directory), 2, SLOT_BYTES)) {
            checkEqual(Files.readSymbolicLink(segment.path()).getParent(), directory);
        }
        Files.delete(directory);
    }

    public static void withoutRoomAnywhereTheErrorNamesTheSettingsAndTheDirectories() {
        Path tmp = Path.of("/tmp");
        checkThrows(
                ExchangeException.class,
                () -> Segment.create(List.of(tmp), 1024 * 1024, 1 << 30),
                "`exchange.slots`=1048576",
                "`exchange.slot_bytes`=1073741824",
                "/tmp: ");
    }
}
