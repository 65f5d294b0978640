package org.headrace.exchange;

import org.apache.flink.table.data.RowData;

import org.headrace.exchange.FixedColumnWriter.Numbers;

import java.util.ArrayList;
import java.util.List;

/**
 * Compiles straight-line code that writes the number columns of one table. A class per writer also has
 * call profiles of its own: which class the rows are of differs from job to job in one JVM, and code that
 * all of them share is slow for all (docs/adr/0042).
 */
final class NumberColumnsCompiler {

    private static final String NAME = "GeneratedNumberColumns";

    private NumberColumnsCompiler() {}

    /** Compiles for those of {@code columns}, the fields of a row in order, that are numbers. */
    static NumberColumns compile(ColumnWriter[] columns) {
        List<Numbers> numbers = new ArrayList<>();
        List<String> statements = new ArrayList<>();
        for (int position = 0; position < columns.length; position++) {
            if (columns[position] instanceof Numbers) {
                Numbers column = (Numbers) columns[position];
                statements.add(statement(column.kind(), numbers.size(), position));
                numbers.add(column);
            }
        }
        NumberColumns compiled =
                numbers.isEmpty()
                        ? new None()
                        : GeneratedClass.instantiate(
                                NAME,
                                NumberColumns.class,
                                "public void write",
                                "org.apache.flink.table.data.RowData row, int index",
                                "row, index",
                                "java.nio.ByteBuffer memory = bytes;\nint[] at = dataAt;\n",
                                statements);
        compiled.bind(numbers);
        return compiled;
    }

    private static String statement(NumberKind kind, int column, int position) {
        return GeneratedClass.code(
                "if (row.isNullAt(%1$d)) { writeNull(%2$d, index); }"
                        + " else { memory.put%3$s(at[%2$d] + index * %4$d, row.get%5$s(%1$d)); }%n",
                position, column, kind.putSuffix(), kind.width(), kind.getSuffix());
    }

    /** Of a table without numbers. */
    private static final class None extends NumberColumns {

        @Override
        public void write(RowData row, int index) {}
    }
}
