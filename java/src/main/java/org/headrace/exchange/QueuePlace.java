package org.headrace.exchange;

import org.apache.flink.annotation.Internal;

import java.nio.file.Path;
import java.util.List;

/**
 * Where a memory queue lives.
 *
 * @param socketPath of the Unix socket, well below 108 bytes, in a directory of mode 0700
 * @param tmpDirs Flink's temp directories, for segments that `/dev/shm` has no room for
 * @param name of the IO thread: job, role and index
 */
@Internal
public record QueuePlace(Path socketPath, List<Path> tmpDirs, String name) {}
