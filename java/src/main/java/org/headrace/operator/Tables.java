package org.headrace.operator;

import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.table.api.DataTypes;
import org.apache.flink.table.api.Schema;
import org.apache.flink.table.api.Table;
import org.apache.flink.table.api.bridge.java.StreamTableEnvironment;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.types.DataType;
import org.apache.flink.table.types.logical.RowType;
import org.apache.flink.table.types.logical.utils.LogicalTypeUtils;
import org.apache.flink.table.types.utils.DataTypeUtils;
import org.apache.flink.table.utils.EncodingUtils;

import org.headrace.exchange.ArrowSchemas;

import java.util.stream.Collectors;

/** Between tables and streams of Flink's internal rows, without a conversion of values. */
final class Tables {

    private Tables() {}

    /** The table's columns; time attributes become plain timestamps. */
    static RowType rowType(Table table) {
        return (RowType)
                LogicalTypeUtils.removeTimeAttributes(
                        table.getResolvedSchema().toPhysicalRowDataType().getLogicalType());
    }

    /**
     * Asks for nullable columns whatever the query says: else the planner adds an operator that looks at
     * every NOT NULL value again (a tenth of the time of a chained role). Arrow's columns are all nullable.
     */
    @SuppressWarnings("unchecked") // The internal type of a row is RowData.
    static DataStream<RowData> toRowData(StreamTableEnvironment tableEnvironment, Table table) {
        DataType row = DataTypeUtils.removeTimeAttribute(table.getResolvedSchema().toPhysicalRowDataType());
        DataType nullable =
                DataTypes.ROW(
                        DataType.getFields(row).stream()
                                .map(field -> DataTypes.FIELD(field.getName(), field.getDataType().nullable()))
                                .toArray(DataTypes.Field[]::new));
        DataType type = DataTypeUtils.toInternalDataType(nullable);
        DataStream<RowData> stream =
                (DataStream<RowData>) (DataStream<?>) tableEnvironment.toDataStream(table, type.notNull());
        stream.getTransformation().setOutputType(BorrowedRowType.of((RowType) type.getLogicalType()));
        return stream;
    }

    /**
     * The rows as a table. Flink lets the watermarks of a stream into a table only if it declares a time
     * column whose watermarks are those of the stream; so this one has a constant column, which the query
     * leaves out. The query also gives the columns the classes that users see: the table of the stream
     * has Flink's internal ones, and so would every row of a stream that is made from it.
     */
    static Table fromRowData(
            StreamTableEnvironment tableEnvironment, DataStream<RowData> stream, RowType type) {
        Schema schema =
                Schema.newBuilder()
                        .columnByExpression(ArrowSchemas.TIMESTAMP_COLUMN, "TO_TIMESTAMP_LTZ(0, 3)")
                        .watermark(ArrowSchemas.TIMESTAMP_COLUMN, "SOURCE_WATERMARK()")
                        .build();
        String columns =
                type.getFieldNames().stream().map(EncodingUtils::escapeIdentifier).collect(Collectors.joining(", "));
        Table all = tableEnvironment.fromDataStream(stream, schema);
        return tableEnvironment.sqlQuery("SELECT " + columns + " FROM " + all);
    }
}
