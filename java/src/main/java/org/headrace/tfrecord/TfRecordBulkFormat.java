package org.headrace.tfrecord;

import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.connector.file.src.FileSourceSplit;
import org.apache.flink.connector.file.src.reader.BulkFormat;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.types.logical.RowType;

import java.io.IOException;

/** TFRecord files for Flink's file source. A file is read by one reader: nothing in it marks where a record begins. */
final class TfRecordBulkFormat implements BulkFormat<RowData, FileSourceSplit> {

    private static final long serialVersionUID = 1L;

    private final RowType type;
    private final TypeInformation<RowData> typeInformation;

    TfRecordBulkFormat(RowType type, TypeInformation<RowData> typeInformation) {
        this.type = type;
        this.typeInformation = typeInformation;
    }

    @Override
    public Reader<RowData> createReader(Configuration configuration, FileSourceSplit split) throws IOException {
        return TfRecordReader.open(split, type);
    }

    @Override
    public Reader<RowData> restoreReader(Configuration configuration, FileSourceSplit split) throws IOException {
        return TfRecordReader.open(split, type);
    }

    @Override
    public boolean isSplittable() {
        return false;
    }

    @Override
    public TypeInformation<RowData> getProducedType() {
        return typeInformation;
    }
}
