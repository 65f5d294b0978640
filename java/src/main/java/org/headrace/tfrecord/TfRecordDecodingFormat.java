package org.headrace.tfrecord;

import org.apache.flink.connector.file.src.FileSourceSplit;
import org.apache.flink.connector.file.src.reader.BulkFormat;
import org.apache.flink.connector.file.table.format.BulkDecodingFormat;
import org.apache.flink.table.connector.ChangelogMode;
import org.apache.flink.table.connector.Projection;
import org.apache.flink.table.connector.format.ProjectableDecodingFormat;
import org.apache.flink.table.connector.source.DynamicTableSource;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.types.DataType;
import org.apache.flink.table.types.logical.RowType;

/** Plans the reading of a table: of the columns that a query uses, others are passed over. */
final class TfRecordDecodingFormat
        implements BulkDecodingFormat<RowData>,
                ProjectableDecodingFormat<BulkFormat<RowData, FileSourceSplit>> {

    @Override
    public BulkFormat<RowData, FileSourceSplit> createRuntimeDecoder(
            DynamicTableSource.Context context, DataType physicalDataType, int[][] projections) {
        ColumnTypes.requireReadable((RowType) physicalDataType.getLogicalType());
        DataType used = Projection.of(projections).project(physicalDataType);
        return new TfRecordBulkFormat((RowType) used.getLogicalType(), context.createTypeInformation(used));
    }

    @Override
    public ChangelogMode getChangelogMode() {
        return ChangelogMode.insertOnly();
    }
}
