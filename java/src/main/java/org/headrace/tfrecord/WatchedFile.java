package org.headrace.tfrecord;

import java.io.FilterInputStream;
import java.io.IOException;
import java.io.InputStream;

/**
 * A file that remembers whether reading it has failed: then an error of what decodes it says nothing about the
 * content, and trying again may help.
 *
 * <p>Not safe for several threads; reads block.
 */
final class WatchedFile extends FilterInputStream {

    private boolean hasFailed;

    WatchedFile(InputStream file) {
        super(file);
    }

    boolean hasFailed() {
        return hasFailed;
    }

    @Override
    public int read() throws IOException {
        try {
            return in.read();
        } catch (IOException e) {
            hasFailed = true;
            throw e;
        }
    }

    @Override
    public int read(byte[] target, int start, int length) throws IOException {
        try {
            return in.read(target, start, length);
        } catch (IOException e) {
            hasFailed = true;
            throw e;
        }
    }

    @Override
    public int available() throws IOException {
        try {
            return in.available();
        } catch (IOException e) {
            hasFailed = true;
            throw e;
        }
    }
}
