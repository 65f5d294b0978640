package org.headrace.exchange;

import java.nio.file.Path;

/**
 * What an acknowledgement says of the state of the process.
 *
 * @param number of the file; the process writes over it once it has the credit with this number
 * @param bytes of the state
 * @param path under which the file can be opened as long as the process lives
 */
record StateOffer(int number, long bytes, Path path) {}
