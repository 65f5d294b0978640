/**
 * The format {@code tfrecord} of Flink's filesystem connector: rows as tf.Example records.
 *
 * <p>Flink finds {@link org.headrace.tfrecord.TfRecordFormatFactory} by its entry under
 * META-INF/services. Nothing here knows the rest of Headrace, or needs more than what is on the class
 * path of every TaskManager. What a file looks like to its readers: docs/guide/tfrecord.md.
 */
package org.headrace.tfrecord;
