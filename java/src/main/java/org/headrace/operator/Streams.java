package org.headrace.operator;

import org.apache.flink.api.common.functions.OpenContext;
import org.apache.flink.api.common.functions.RichMapFunction;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.table.api.bridge.java.StreamTableEnvironment;
import org.apache.flink.table.api.internal.TableEnvironmentImpl;
import org.apache.flink.table.catalog.DataTypeFactory;
import org.apache.flink.table.data.GenericRowData;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.data.conversion.DataStructureConverter;
import org.apache.flink.table.data.conversion.DataStructureConverters;
import org.apache.flink.table.runtime.typeutils.ExternalTypeInfo;
import org.apache.flink.table.types.DataType;
import org.apache.flink.table.types.logical.RowType;
import org.apache.flink.table.types.utils.TypeConversions;
import org.apache.flink.table.types.utils.TypeInfoDataTypeConverter;
import org.apache.flink.types.Row;
import org.apache.flink.types.RowKind;

/**
 * Between streams of the DataStream API and streams of Flink's internal rows. Unlike Flink's way through
 * a table, it keeps the timestamps of the records.
 */
final class Streams {

    private Streams() {}

    /** The records of a stream as rows of the type that Flink derives for a table of it. */
    @SuppressWarnings("unchecked") // The converter is made for whatever the records are.
    static DataStream<RowData> toRowData(
            StreamTableEnvironment tableEnvironment, DataStream<?> stream, RowType rowType) {
        DataTypeFactory types = ((TableEnvironmentImpl) tableEnvironment).getCatalogManager().getDataTypeFactory();
        DataType type = TypeInfoDataTypeConverter.toDataType(types, stream.getType());
        return mapped((DataStream<Object>) stream, new ToInternal(type), BorrowedRowType.of(rowType));
    }

    /** Rows with the values that users see. */
    static DataStream<Row> fromRowData(DataStream<RowData> stream, RowType rowType) {
        DataType type = TypeConversions.fromLogicalToDataType(rowType).notNull();
        return mapped(stream, new ToExternal(type), ExternalTypeInfo.of(type));
    }

    private static <I, O> DataStream<O> mapped(
            DataStream<I> stream, RichMapFunction<I, O> function, TypeInformation<O> type) {
        return stream.map(function, type).name("rows").setParallelism(stream.getParallelism());
    }

    private static final class ToInternal extends RichMapFunction<Object, RowData> {

        private static final long serialVersionUID = 1L;

        private final DataStructureConverter<Object, Object> converter;

        ToInternal(DataType type) {
            converter = DataStructureConverters.getConverter(type);
        }

        @Override
        public void open(OpenContext context) {
            converter.open(getRuntimeContext().getUserCodeClassLoader());
        }

        @Override
        public RowData map(Object record) {
            Object value = converter.toInternalOrNull(record);
            RowData row = value instanceof RowData ? (RowData) value : GenericRowData.of(value);
            if (row.getRowKind() != RowKind.INSERT) {
                throw new IllegalArgumentException(
                        String.format(
                                "A record of the stream is a change (%s), and roles take rows that are only added: %s."
                                        + " Filter such records out, or send what they lead to as rows of its own.",
                                row.getRowKind().shortString(), record));
            }
            return row;
        }
    }

    private static final class ToExternal extends RichMapFunction<RowData, Row> {

        private static final long serialVersionUID = 1L;

        private final DataStructureConverter<Object, Object> converter;

        ToExternal(DataType type) {
            converter = DataStructureConverters.getConverter(type);
        }

        @Override
        public void open(OpenContext context) {
            converter.open(getRuntimeContext().getUserCodeClassLoader());
        }

        @Override
        public Row map(RowData row) {
            return (Row) converter.toExternal(row);
        }
    }
}
