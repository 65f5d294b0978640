package org.headrace.operator;

import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.node.ObjectNode;

import org.headrace.exchange.StateFile;

import java.io.DataInputStream;
import java.io.DataOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.nio.file.Path;
import java.util.List;

/**
 * The state of one process as a checkpoint holds it: a header, big-endian, and the bytes as the process
 * wrote them. docs/exchange.md section 5.
 *
 * @param role of the process
 * @param index of the process in its role
 * @param parallelism processes of the role then
 * @param file the bytes; null: no row had been handed to the process
 */
record StatePart(String role, int index, int parallelism, StateFile file) {

    private static final int MAGIC = 0x48525354; // "HRST"
    private static final int VERSION = 1;

    long bytes() {
        return file == null ? 0 : file.bytes();
    }

    /** Says to the node where the state lies. */
    void describe(ObjectNode state) {
        state.put("path", file == null ? null : file.path().toString());
        state.put("index", index);
        state.put("parallelism", parallelism);
    }

    void writeTo(OutputStream stream) throws IOException {
        DataOutputStream header = new DataOutputStream(stream);
        header.writeInt(MAGIC);
        header.writeInt(VERSION);
        header.writeUTF(role);
        header.writeInt(index);
        header.writeInt(parallelism);
        header.writeBoolean(file != null);
        header.writeLong(bytes());
        header.flush();
        if (file != null) {
            file.writeTo(stream);
        }
    }

    /** Reads a part; its bytes go to a file in one of {@code directories}. Blocks. */
    static StatePart readFrom(InputStream stream, List<Path> directories) throws IOException {
        DataInputStream header = new DataInputStream(stream);
        int magic = header.readInt();
        int version = header.readInt();
        if (magic != MAGIC || version != VERSION) {
            throw new IOException(
                    String.format(
                            "The checkpoint holds a state of a process in a format (%08x, version %d) that this version"
                                    + " of Headrace cannot read (%08x, version %d)",
                            magic, version, MAGIC, VERSION));
        }
        String role = header.readUTF();
        int index = header.readInt();
        int parallelism = header.readInt();
        boolean hasBytes = header.readBoolean();
        long bytes = header.readLong();
        StateFile file = hasBytes ? StateFile.copy(stream, bytes, directories) : null;
        return new StatePart(role, index, parallelism, file);
    }
}
