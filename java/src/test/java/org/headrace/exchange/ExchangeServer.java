package org.headrace.exchange;

import org.apache.flink.core.memory.MemorySegment;
import org.apache.flink.core.memory.MemorySegmentFactory;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.data.binary.BinaryRowData;
import org.apache.flink.table.data.binary.BinarySegmentUtils;
import org.apache.flink.table.runtime.typeutils.RowDataSerializer;
import org.apache.flink.table.types.logical.RowType;
import org.apache.flink.table.types.logical.utils.LogicalTypeParser;
import org.apache.flink.types.RowKind;

import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HexFormat;
import java.util.StringJoiner;

/**
 * Schemas, reader and writer for Python's tests: one command per line on stdin, one answer per line on
 * stdout ("ok ..." or "error ..."), fields separated by tabs.
 */
public final class ExchangeServer {

    private ExchangeServer() {}

    public static void main(String[] args) throws IOException {
        BufferedReader commands =
                new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        PrintStream answers = new PrintStream(System.out, true, StandardCharsets.UTF_8);
        for (String line = commands.readLine(); line != null; line = commands.readLine()) {
            String answer;
            try {
                answer = "ok " + handle(line.split("\t"));
            } catch (ExchangeException e) {
                answer = "error " + e.getClass().getSimpleName() + ": " + e.getMessage();
            } catch (RuntimeException e) {
                e.printStackTrace();
                answer = "error " + e;
            }
            answers.println(answer.replace('\n', ' '));
        }
    }

    private static String handle(String[] command) throws IOException {
        RowType type =
                (RowType)
                        LogicalTypeParser.parse(
                                command[1], ExchangeServer.class.getClassLoader());
        switch (command[0]) {
            case "schema":
                Files.write(Path.of(command[2]), ArrowSchemas.toIpcBytes(type));
                return "";
            case "rows":
                return rows(type, Path.of(command[2]));
            case "pack":
                return pack(type, Path.of(command[2]));
            case "round_trip":
                return roundTrip(
                        type,
                        Path.of(command[2]),
                        Path.of(command[3]),
                        Integer.parseInt(command[4]),
                        Integer.parseInt(command[5]));
            default:
                throw new IllegalArgumentException(command[0]);
        }
    }

    private static String rows(RowType type, Path from) throws IOException {
        BatchReader reader = open(type, from);
        StringBuilder text = new StringBuilder();
        for (int i = 0; i < reader.rows(); i++) {
            text.append(RowTexts.of(reader.row(i), type)).append('@');
            text.append(reader.hasTimestamp(i) ? reader.timestamp(i) : "NULL").append(';');
        }
        return text.toString();
    }

    /** Packs the rows of a message; returns the bytes of each, and those that Flink makes of it, in hex. */
    private static String pack(RowType type, Path from) throws IOException {
        BatchReader reader = open(type, from);
        RowPacker packer = RowPacker.of(type);
        RowDataSerializer flink = new RowDataSerializer(type);
        StringJoiner pairs = new StringJoiner(";");
        for (int i = 0; i < reader.rows(); i++) {
            RowData row = reader.row(i);
            row.setRowKind(i % 2 == 0 ? RowKind.INSERT : RowKind.DELETE);
            pairs.add(hex(packer.pack(row)) + "=" + hex(flink.toBinaryRow(row)));
        }
        return pairs.toString();
    }

    private static String hex(BinaryRowData row) {
        byte[] bytes = BinarySegmentUtils.copyToBytes(row.getSegments(), row.getOffset(), row.getSizeInBytes());
        return HexFormat.of().formatHex(bytes);
    }

    /** Reads a message and writes its rows in as many messages as they need; says how many. */
    private static String roundTrip(
            RowType type, Path from, Path to, int batchRows, int slotBytes) throws IOException {
        BatchReader reader = open(type, from);
        BatchWriter writer = new BatchWriter(type, batchRows);
        MemorySegment slot = MemorySegmentFactory.allocateUnpooledOffHeapMemory(slotBytes);
        int messages = 0;
        int next = 0;
        while (next < reader.rows()) {
            writer.begin(slot);
            int first = next;
            while (next < reader.rows() && write(writer, reader, next)) {
                next++;
            }
            MemorySegment target = slot;
            if (next == first) { // the way of a row that does not fit an empty slot
                int bytes = (int) writer.measure(reader.row(next));
                if (bytes > slotBytes) {
                    target = MemorySegmentFactory.allocateUnpooledOffHeapMemory(bytes);
                }
                writer.beginFor(reader.row(next), target);
                if (!write(writer, reader, next)) {
                    throw new IllegalStateException("measured too small");
                }
                next++;
            }
            byte[] message = new byte[writer.finish()];
            target.get(0, message);
            Files.write(to.resolveSibling(to.getFileName() + "." + messages++), message);
        }
        return String.valueOf(messages);
    }

    private static boolean write(BatchWriter writer, BatchReader reader, int row) {
        boolean hasTimestamp = reader.hasTimestamp(row);
        return writer.write(
                reader.row(row), hasTimestamp, hasTimestamp ? reader.timestamp(row) : 0);
    }

    private static BatchReader open(RowType type, Path from) throws IOException {
        byte[] bytes = Files.readAllBytes(from);
        MemorySegment memory =
                MemorySegmentFactory.wrapOffHeapMemory(
                        ByteBuffer.allocateDirect(bytes.length).put(bytes).flip());
        BatchReader reader = new BatchReader(type);
        reader.open(memory, bytes.length);
        return reader;
    }
}
