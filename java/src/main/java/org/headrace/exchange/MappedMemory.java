package org.headrace.exchange;

import org.apache.flink.core.memory.MemorySegment;
import org.apache.flink.core.memory.MemorySegmentFactory;

import java.io.IOException;
import java.lang.invoke.MethodHandle;
import java.lang.invoke.MethodHandles;
import java.lang.invoke.MethodType;
import java.lang.reflect.Field;
import java.nio.ByteBuffer;
import java.nio.MappedByteBuffer;
import java.nio.channels.FileChannel;

/**
 * A mapped part of a file that is unmapped when closed, not when the garbage collector finds it.
 *
 * <p>After close the memory segment is freed: access throws IllegalStateException. That check and
 * the unmapping race if they are on two threads; both belong to the task thread.
 */
final class MappedMemory implements AutoCloseable {

    private static final MethodHandle UNMAP = findUnmap();

    private final MemorySegment memory;
    private MappedByteBuffer mapped;

    private MappedMemory(MappedByteBuffer mapped) {
        this.mapped = mapped;
        this.memory = MemorySegmentFactory.wrapOffHeapMemory(mapped);
    }

    static MappedMemory map(FileChannel channel, long position, int bytes) throws IOException {
        return new MappedMemory(channel.map(FileChannel.MapMode.READ_WRITE, position, bytes));
    }

    MemorySegment memory() {
        return memory;
    }

    /** Unmaps. Idempotent. */
    @Override
    public void close() {
        if (mapped == null) {
            return;
        }
        MappedByteBuffer buffer = mapped;
        mapped = null;
        memory.free();
        try {
            UNMAP.invoke((ByteBuffer) buffer);
        } catch (RuntimeException | Error e) {
            throw e;
        } catch (Throwable e) {
            throw new IllegalStateException("cannot unmap", e);
        }
    }

    /** sun.misc.Unsafe.invokeCleaner: the JDK's only way to unmap, by reflection (no javac warning). */
    private static MethodHandle findUnmap() {
        try {
            Class<?> type = Class.forName("sun.misc.Unsafe");
            Field instance = type.getDeclaredField("theUnsafe");
            instance.setAccessible(true);
            return MethodHandles.lookup()
                    .findVirtual(
                            type,
                            "invokeCleaner",
                            MethodType.methodType(void.class, ByteBuffer.class))
                    .bindTo(instance.get(null));
        } catch (ReflectiveOperationException e) {
            throw new ExceptionInInitializerError(e);
        }
    }
}
