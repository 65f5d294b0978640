package org.headrace.exchange;

import org.apache.flink.core.memory.MemorySegment;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;

/**
 * The memory that a batch is written into, seen twice. Bulk copies go through Flink's segment. Single
 * values go through the buffer: the JIT knows that it is off the heap and makes plain stores, while each
 * access to a segment, which may be either, is fenced off from the code around it (docs/adr/0042).
 */
record Target(MemorySegment segment, ByteBuffer bytes) {

    static Target of(MemorySegment segment) {
        return new Target(segment, segment.wrap(0, segment.size()).order(ByteOrder.LITTLE_ENDIAN));
    }
}
