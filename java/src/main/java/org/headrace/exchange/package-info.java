/**
 * The JVM's side of the memory queue: Arrow batches in shared memory, frames over a Unix socket.
 *
 * <p>Byte layout and protocol: docs/exchange.md. Entry point: {@link
 * org.headrace.exchange.MemoryQueue}. Nothing here knows operators or processes.
 */
package org.headrace.exchange;
