package org.headrace.process;

import org.apache.flink.core.fs.FileStatus;
import org.apache.flink.core.fs.FileSystem;
import org.apache.flink.core.fs.FileSystemFactory;
import org.apache.flink.core.fs.Path;
import org.apache.flink.core.fs.local.LocalFileSystem;

import java.io.File;
import java.io.IOException;
import java.net.SocketTimeoutException;
import java.net.URI;

/**
 * A file system of a scheme of its own, {@code shelf:///path}, which only Flink can read: this host's
 * files. Beside a file of the name and {@code .times-out} the next look at it times out; that file goes.
 */
public final class ShelfFileSystemFactory implements FileSystemFactory {

    @Override
    public String getScheme() {
        return "shelf";
    }

    @Override
    public FileSystem create(URI uri) {
        return new ShelfFileSystem();
    }

    private static final class ShelfFileSystem extends LocalFileSystem {

        @Override
        public URI getUri() {
            return URI.create("shelf:///");
        }

        @Override
        public FileStatus getFileStatus(Path path) throws IOException {
            if (new File(path.getPath() + ".times-out").delete()) {
                throw new SocketTimeoutException("Read timed out");
            }
            return super.getFileStatus(path);
        }

        @Override
        public boolean isDistributedFS() {
            return true;
        }
    }
}
