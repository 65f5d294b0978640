package org.headrace.operator;

import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.table.api.DataTypes;
import org.apache.flink.table.api.Table;
import org.apache.flink.table.api.bridge.java.StreamTableEnvironment;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.types.DataType;
import org.apache.flink.table.types.logical.RowType;
import org.apache.flink.table.types.logical.utils.LogicalTypeUtils;
import org.apache.flink.table.types.utils.DataTypeUtils;

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
        return (DataStream<RowData>) (DataStream<?>) tableEnvironment.toDataStream(table, type.notNull());
    }
}
