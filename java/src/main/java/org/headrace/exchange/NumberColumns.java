package org.headrace.exchange;

import org.apache.flink.annotation.Internal;
import org.apache.flink.table.data.RowData;

import org.headrace.exchange.FixedColumnWriter.Numbers;

import java.nio.ByteBuffer;
import java.util.List;

/**
 * The number columns of a table, written row by row. {@link NumberColumnsCompiler} makes a subclass for
 * each writer.
 *
 * <p>There is always room: their space is laid out for every row that the batch may take.
 *
 * <p>Thread model: task thread only. Public and with protected members for generated code alone.
 */
@Internal
public abstract class NumberColumns {

    /** The memory of the open batch. */
    protected ByteBuffer bytes;

    /** Where each column's elements start in it. */
    protected int[] dataAt;

    private Numbers[] columns;

    /** Writes the number fields of the batch's row {@code index}. */
    public abstract void write(RowData row, int index);

    /** Writes NULL into the {@code column}-th of these columns. */
    protected final void writeNull(int column, int index) {
        columns[column].count = index;
        columns[column].writeNull();
    }

    final void bind(List<Numbers> numbers) {
        columns = numbers.toArray(Numbers[]::new);
        dataAt = new int[columns.length];
    }

    /** Starts a batch, which the columns themselves have begun already. */
    final void begin(Target memory) {
        bytes = memory.bytes();
        for (int i = 0; i < columns.length; i++) {
            dataAt[i] = columns[i].dataAt;
        }
    }

    /** Ends a batch of {@code rows} rows. */
    final void end(int rows) {
        for (Numbers column : columns) {
            column.count = rows;
        }
    }
}
