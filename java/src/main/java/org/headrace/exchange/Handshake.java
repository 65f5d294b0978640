package org.headrace.exchange;

import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.JsonNode;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.ObjectMapper;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.node.ObjectNode;
import org.apache.flink.table.types.logical.RowType;

import java.io.IOException;
import java.nio.ByteBuffer;

/** HELLO and OPEN: what the two sides tell each other first; docs/exchange.md section 3. */
final class Handshake {

    static final int VERSION = 1;
    static final int MAX_HELLO_BYTES = 1024;

    private static final ObjectMapper JSON = new ObjectMapper();

    private final ExchangeSettings settings;
    private final byte[] inputSchema;
    private final byte[] outputSchema;
    private boolean isAnswered;
    private int attempt;
    private long pid;

    Handshake(ExchangeSettings settings, RowType inputType, RowType outputType) {
        this.settings = settings;
        inputSchema = inputType == null ? null : ArrowSchemas.toIpcBytes(inputType);
        outputSchema = outputType == null ? null : ArrowSchemas.toIpcBytes(outputType);
    }

    /** Refuses bytes as soon as they cannot become a HELLO, so that nobody has to keep them. */
    static void requireBeginOfHello(ByteBuffer bytes) {
        int start = bytes.position();
        if (bytes.hasRemaining() && bytes.get(start) != FrameType.HELLO.code()) {
            throw new MalformedMessageException("it did not begin with a HELLO");
        }
        if (bytes.remaining() >= Frame.HEADER_BYTES
                && Integer.compareUnsigned(bytes.getInt(start + Integer.BYTES), MAX_HELLO_BYTES) > 0) {
            throw new MalformedMessageException("its HELLO has more than " + MAX_HELLO_BYTES + " bytes");
        }
    }

    /** Refuses a HELLO without the fields of one; whether the version fits is for the task to say. */
    static void requireHello(Frame hello) {
        JsonNode who;
        try {
            who = JSON.readTree(hello.payload());
        } catch (IOException e) {
            throw new MalformedMessageException("its HELLO is not JSON", e);
        }
        if (!who.path("attempt").isIntegralNumber() || !who.path("pid").isIntegralNumber()) {
            throw new MalformedMessageException("its HELLO names no attempt and pid");
        }
    }

    /** A new connection starts over. */
    void reset() {
        isAnswered = false;
    }

    /** Checks the HELLO and returns the OPEN for it; null segment: no such direction. */
    Frame answer(Frame hello, Segment input, Segment output) {
        MessageMetadata.require(
                hello.value() == VERSION, "protocol version %s, not %s", hello.value(), VERSION);
        MessageMetadata.require(!isAnswered, "HELLO twice");
        try {
            JsonNode who = JSON.readTree(hello.payload());
            attempt = who.path("attempt").asInt();
            pid = who.path("pid").asLong();
            ObjectNode open = JSON.createObjectNode();
            open.set("input", direction(input, inputSchema));
            open.set("output", direction(output, outputSchema));
            isAnswered = true;
            return Frame.text(FrameType.OPEN, VERSION, JSON.writeValueAsString(open));
        } catch (IOException e) {
            throw new MalformedMessageException("HELLO without valid JSON", e);
        }
    }

    private ObjectNode direction(Segment segment, byte[] schema) {
        if (segment == null) {
            return null;
        }
        ObjectNode direction = JSON.createObjectNode();
        direction.put("path", segment.path().toString());
        direction.put("slots", segment.slots());
        direction.put("slot_bytes", segment.slotBytes());
        direction.put("schema", schema); // Jackson writes bytes as base64
        direction.put("batch_rows", settings.batchRows());
        direction.put("max_row_bytes", settings.maxRowBytes());
        return direction;
    }

    void requireAnswered() {
        MessageMetadata.require(isAnswered, "MAPPED before HELLO");
        isAnswered = false;
    }

    int attempt() {
        return attempt;
    }

    long pid() {
        return pid;
    }
}
