package org.headrace.am;

import org.apache.flink.api.connector.source.SourceEvent;

/**
 * Tells the reader of {@link AmSource} to end.
 *
 * @param execution the reader that is meant; every other ignores it
 */
record EndControlStream(String execution) implements SourceEvent {}
