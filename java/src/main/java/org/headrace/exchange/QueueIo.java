package org.headrace.exchange;

import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

import java.io.IOException;
import java.net.StandardProtocolFamily;
import java.net.UnixDomainSocketAddress;
import java.nio.channels.CancelledKeyException;
import java.nio.channels.SelectionKey;
import java.nio.channels.Selector;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.PosixFilePermissions;
import java.util.ArrayDeque;
import java.util.Deque;
import java.util.Set;
import java.util.concurrent.RejectedExecutionException;
import java.util.concurrent.atomic.AtomicInteger;

/**
 * The IO thread of one memory queue: accepts the process, reads its frames, writes what got stuck.
 *
 * <p>Whoever connects is a guest until it has said a HELLO. The first guest that does so is the process;
 * events carry the number of its connection, from 1, so that the task thread can fence late ones. A guest
 * that says something else is closed, and so is one that says HELLO while a process is connected; one that
 * says nothing may stay, until there are more than {@link #MAX_GUESTS}. None of them is heard of outside.
 *
 * <p>Frames that the task thread has not handled yet are bounded: over the limit the socket is not
 * read, so a process that floods is held back. Its end is not seen meanwhile, so whoever says HELLO then is a
 * candidate, and waits until the socket has been read.
 *
 * <p>Thread model: {@link #run} is the IO thread and never blocks but in select; {@link #close} on the
 * task thread, bounded by {@link #CLOSE_TIMEOUT_MS}.
 */
final class QueueIo implements AutoCloseable {

    /** What happens on the connection; called on the IO thread, must not block. */
    interface Events {

        void onAccepted(int connection, FrameChannel channel);

        void onFrame(int connection, Frame frame);

        void onLost(int connection, Throwable cause);

        /** The IO thread itself failed and has ended. */
        void onBroken(Throwable cause);
    }

    /** A guest that has said HELLO; its key waits for nothing. */
    private record Candidate(SelectionKey key, Frame hello) {}

    static final long CLOSE_TIMEOUT_MS = 5_000;

    private static final Logger LOG = LoggerFactory.getLogger(QueueIo.class);
    private static final int MAX_UNHANDLED_FRAMES = 4_096;
    static final int MAX_GUESTS = 64;

    private final Path socketPath;
    private final Events events;
    private final Selector selector;
    private final ServerSocketChannel server;
    private final Thread thread;
    private final AtomicInteger unhandledFrames = new AtomicInteger();
    private volatile boolean isClosed;

    private SelectionKey serverKey;
    private final Deque<SelectionKey> guests = new ArrayDeque<>(); // each with its FrameChannel, oldest first
    private final Deque<Candidate> candidates = new ArrayDeque<>(); // oldest first
    private int connection;
    private FrameChannel channel; // of the process; null: none is connected
    private SelectionKey channelKey;
    private boolean isReadOut; // the last look at the channel found nothing more there

    private QueueIo(Path socketPath, String name, Events events) throws IOException {
        this.socketPath = socketPath;
        this.events = events;
        selector = Selector.open();
        server = ServerSocketChannel.open(StandardProtocolFamily.UNIX);
        thread = new Thread(this::run, "headrace-io " + name);
        thread.setDaemon(true);
    }

    /** Binds the socket and starts the thread. */
    static QueueIo open(Path socketPath, String name, Events events) {
        QueueIo io = null;
        try {
            io = new QueueIo(socketPath, name, events);
            io.server.bind(UnixDomainSocketAddress.of(socketPath));
            Files.setPosixFilePermissions(socketPath, PosixFilePermissions.fromString("rw-------"));
            io.server.configureBlocking(false);
            io.serverKey = io.server.register(io.selector, SelectionKey.OP_ACCEPT);
            io.thread.start();
            return io;
        } catch (IOException e) {
            if (io != null) {
                io.closeChannels();
            }
            throw new ExchangeException("Cannot listen on the socket " + socketPath, e);
        }
    }

    /** Tells that the task thread has handled a frame. */
    void frameHandled() {
        if (unhandledFrames.decrementAndGet() == MAX_UNHANDLED_FRAMES / 2) {
            selector.wakeup();
        }
    }

    private void run() {
        try {
            while (!isClosed) {
                selector.select();
                Set<SelectionKey> ready = Set.copyOf(selector.selectedKeys());
                selector.selectedKeys().clear();
                if (channel != null) {
                    serveChannel(); // first: the end of one process may come with the next one
                }
                admit();
                for (SelectionKey key : ready) {
                    if (key == serverKey) {
                        acceptAll();
                    } else if (guests.contains(key)) {
                        serveGuest(key);
                    }
                }
            }
        } catch (RejectedExecutionException e) {
            LOG.debug("The task takes no more mails; the queue's IO thread ends.", e);
        } catch (Throwable e) { // whatever it is, the task must learn of it
            if (!isClosed) {
                events.onBroken(e);
            }
        } finally {
            closeChannels();
        }
    }

    /** Takes all who wait: there is little room for them in the kernel. */
    private void acceptAll() throws IOException {
        for (SocketChannel socket = server.accept(); socket != null; socket = server.accept()) {
            welcome(socket);
        }
    }

    private void welcome(SocketChannel socket) throws IOException {
        socket.configureBlocking(false);
        SelectionKey key = socket.register(selector, SelectionKey.OP_READ);
        key.attach(new FrameChannel(socket, selector::wakeup));
        guests.addLast(key);
        serveGuest(key); // a process has said HELLO by now, as a rule
        if (guests.size() > MAX_GUESTS) {
            turnAway(guests.getFirst(), "it has said nothing, and others have come since");
        }
    }

    private void serveGuest(SelectionKey key) {
        FrameChannel guest = (FrameChannel) key.attachment();
        Frame hello;
        try {
            hello = guest.receiveHello();
        } catch (IOException | MalformedMessageException e) {
            turnAway(key, e.getMessage());
            return;
        }
        if (hello == null) {
            return;
        }
        guests.remove(key);
        key.interestOps(0);
        candidates.addLast(new Candidate(key, hello));
        if (candidates.size() > MAX_GUESTS) {
            turnAway(candidates.removeFirst().key(), "others have said HELLO since");
        }
        admit();
    }

    /** Once it is known whether a process is connected: turns the candidates away, or takes the oldest for it. */
    private void admit() {
        while (!candidates.isEmpty()) {
            if (channel != null) {
                serveChannel(); // its end may have come since the last look
            }
            if (channel == null) {
                begin(candidates.removeFirst());
            } else if (isReadOut) {
                turnAway(candidates.removeFirst().key(), "a process is connected");
            } else {
                return; // frames are held back, and the end may be behind them
            }
        }
    }

    private void begin(Candidate candidate) {
        connection++;
        channel = (FrameChannel) candidate.key().attachment();
        channelKey = candidate.key();
        events.onAccepted(connection, channel);
        unhandledFrames.incrementAndGet();
        events.onFrame(connection, candidate.hello());
        serveChannel();
    }

    private void turnAway(SelectionKey key, String why) {
        LOG.warn("A connection to {} is closed: {}", socketPath, why);
        guests.remove(key);
        closeQuietly((FrameChannel) key.attachment());
    }

    private void serveChannel() {
        isReadOut = false;
        try {
            channel.flush();
            while (unhandledFrames.get() < MAX_UNHANDLED_FRAMES) {
                Frame frame = channel.receive();
                if (frame == null) {
                    isReadOut = true;
                    break;
                }
                unhandledFrames.incrementAndGet();
                events.onFrame(connection, frame);
            }
            int read = unhandledFrames.get() < MAX_UNHANDLED_FRAMES ? SelectionKey.OP_READ : 0;
            channelKey.interestOps(read | (channel.wantsToWrite() ? SelectionKey.OP_WRITE : 0));
        } catch (IOException | CancelledKeyException | MalformedMessageException e) {
            closeQuietly(channel);
            channel = null;
            events.onLost(connection, e);
        }
    }

    /** Closes socket and thread. Idempotent; waits at most {@link #CLOSE_TIMEOUT_MS}. */
    @Override
    public void close() {
        isClosed = true;
        selector.wakeup();
        try {
            thread.join(CLOSE_TIMEOUT_MS);
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt(); // the thread ends by itself
        }
        if (thread.isAlive()) {
            LOG.warn("{} has not ended within {} ms.", thread.getName(), CLOSE_TIMEOUT_MS);
        }
    }

    private void closeChannels() {
        guests.forEach(key -> closeQuietly((FrameChannel) key.attachment()));
        candidates.forEach(each -> closeQuietly((FrameChannel) each.key().attachment()));
        closeQuietly(channel);
        closeQuietly(server);
        closeQuietly(selector);
        try {
            Files.deleteIfExists(socketPath);
        } catch (IOException e) {
            LOG.warn("Cannot remove {}", socketPath, e);
        }
    }

    private static void closeQuietly(AutoCloseable closeable) {
        if (closeable == null) {
            return;
        }
        try {
            closeable.close();
        } catch (Exception e) {
            LOG.debug("Closing {} failed", closeable, e);
        }
    }
}
