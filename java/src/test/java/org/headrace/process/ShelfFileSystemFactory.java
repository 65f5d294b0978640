package org.headrace.process;

import org.apache.flink.core.fs.FileSystem;
import org.apache.flink.core.fs.FileSystemFactory;
import org.apache.flink.core.fs.local.LocalFileSystem;

import java.net.URI;

/** A file system of a scheme of its own, {@code shelf:///path}, which only Flink can read: this host's files. */
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
        public boolean isDistributedFS() {
            return true;
        }
    }
}
