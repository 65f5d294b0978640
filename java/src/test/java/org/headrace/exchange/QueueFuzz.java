package org.headrace.exchange;

import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.ObjectMapper;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.node.ArrayNode;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.node.ObjectNode;
import org.apache.flink.table.data.RowData;

import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.OutputStream;
import java.io.PrintWriter;
import java.io.StringWriter;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.List;

/**
 * Serves one process after the other, each by a queue of its own, and tells what came of it. For processes that say
 * HELLO, and then anything.
 *
 * <p>Argument: temp directory. Each line of stdin is the path of a socket. The first answer is "listening"; the queue
 * has been given two batches, a large row, and the barriers 7, -1 and 8 by then. The second one, when the process is
 * gone, is JSON.
 */
public final class QueueFuzz implements QueueListener {

    private static final ObjectMapper JSON = new ObjectMapper();
    private static final ExchangeSettings SETTINGS = new ExchangeSettings(4, 1 << 16, 2, 60_000, 1 << 20);

    private final ObjectNode told = JSON.createObjectNode();
    private final ArrayNode heard = told.putArray("heard");
    private final ArrayNode states = told.putArray("states");
    private MemoryQueue queue;
    private boolean isEnded;
    private Throwable lost;

    private QueueFuzz() {}

    public static void main(String[] args) throws Exception {
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            System.out.println(new QueueFuzz().serve(Path.of(line), Path.of(args[0])));
        }
    }

    private String serve(Path socket, Path directory) {
        TestMailbox mailbox = new TestMailbox();
        TaskHooks hooks = new TaskHooks(mailbox, new ManualTimers(), () -> {}, () -> {});
        QueuePlace place = new QueuePlace(socket, List.of(directory), "fuzz");
        try (MemoryQueue opened =
                MemoryQueue.open(SETTINGS, QueueFixture.TYPE, QueueFixture.TYPE, place, hooks, this)) {
            queue = opened;
            for (int i = 0; i < 4; i++) {
                queue.write(QueueFixture.row(i), true, i);
            }
            queue.write(QueueFixture.row(4, "x".repeat(100_000)), false, 0);
            for (long barrier : List.of(7L, -1L, 8L)) {
                queue.writeBarrier(barrier);
            }
            System.out.println("listening");
            mailbox.yieldUntil(() -> lost != null || (isEnded && !queue.isConnected()));
            told.put("outcome", lost == null ? "ended" : "lost");
            told.put("text", lost == null ? "" : lost.toString());
            boolean isKnown = lost == null || lost instanceof ExchangeException;
            if (!isKnown) {
                told.put("outcome", "broken");
            }
        } catch (ExchangeException e) {
            told.put("outcome", "failed").put("text", e.toString());
        } catch (Throwable e) {
            StringWriter text = new StringWriter();
            e.printStackTrace(new PrintWriter(text));
            told.put("outcome", "broken").put("text", text.toString());
        }
        return told.toString();
    }

    @Override
    public void onRow(RowData row, boolean hasTimestamp, long timestamp) {
        heard.add(RowTexts.of(row, QueueFixture.TYPE));
    }

    @Override
    public void onWatermark(long timestamp) {
        heard.add("watermark");
    }

    @Override
    public void onBarrierAck(long checkpointId, StateFile state) {
        heard.add("acknowledged " + checkpointId);
        if (state == null) {
            return;
        }
        try (state) {
            states.add(state.path().toString());
            state.writeTo(OutputStream.nullOutputStream());
        } catch (IOException e) {
            heard.add("no state");
        }
        queue.giveBack(state);
    }

    @Override
    public void onBarrierDeclined(long checkpointId) {
        heard.add("declined " + checkpointId);
    }

    @Override
    public void onOutputEnd() {
        heard.add("end");
        isEnded = true;
    }

    @Override
    public void onConnectionLost(Throwable cause) {
        lost = cause;
    }
}
