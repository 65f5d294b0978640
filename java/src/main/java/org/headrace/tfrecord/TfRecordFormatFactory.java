package org.headrace.tfrecord;

import org.apache.flink.annotation.Internal;
import org.apache.flink.api.common.serialization.BulkWriter;
import org.apache.flink.configuration.ConfigOption;
import org.apache.flink.configuration.ConfigOptions;
import org.apache.flink.configuration.ReadableConfig;
import org.apache.flink.connector.file.table.factories.BulkReaderFormatFactory;
import org.apache.flink.connector.file.table.factories.BulkWriterFormatFactory;
import org.apache.flink.connector.file.table.format.BulkDecodingFormat;
import org.apache.flink.table.api.ValidationException;
import org.apache.flink.table.connector.ChangelogMode;
import org.apache.flink.table.connector.format.EncodingFormat;
import org.apache.flink.table.connector.sink.DynamicTableSink;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.factories.DynamicTableFactory;
import org.apache.flink.table.types.DataType;
import org.apache.flink.table.types.logical.RowType;

import java.util.Set;
import java.util.stream.Collectors;

/** Makes {@code 'format' = 'tfrecord'} known to Flink's filesystem connector, both ways. */
@Internal
public final class TfRecordFormatFactory implements BulkReaderFormatFactory, BulkWriterFormatFactory {

    private static final String IDENTIFIER = "tfrecord";

    private static final ConfigOption<Compression> COMPRESSION =
            ConfigOptions.key("compression")
                    .enumType(Compression.class)
                    .defaultValue(Compression.NONE)
                    .withDescription("How files are compressed that are written; reading finds out by itself.");

    private static final ConfigOption<Boolean> NARROW_DOUBLES =
            ConfigOptions.key("narrow-doubles")
                    .booleanType()
                    .defaultValue(false)
                    .withDescription("Whether DOUBLE columns are written although a float_list has 32-bit floats.");

    @Override
    public String factoryIdentifier() {
        return IDENTIFIER;
    }

    @Override
    public Set<ConfigOption<?>> requiredOptions() {
        return Set.of();
    }

    @Override
    public Set<ConfigOption<?>> optionalOptions() {
        return Set.of(COMPRESSION, NARROW_DOUBLES);
    }

    @Override
    public BulkDecodingFormat<RowData> createDecodingFormat(
            DynamicTableFactory.Context context, ReadableConfig options) {
        requireKnownOptions(context);
        return new TfRecordDecodingFormat();
    }

    @Override
    public EncodingFormat<BulkWriter.Factory<RowData>> createEncodingFormat(
            DynamicTableFactory.Context context, ReadableConfig options) {
        requireKnownOptions(context);
        Compression compression = options.get(COMPRESSION);
        boolean narrowsDoubles = options.get(NARROW_DOUBLES);
        return new EncodingFormat<>() {
            @Override
            public BulkWriter.Factory<RowData> createRuntimeEncoder(
                    DynamicTableSink.Context sinkContext, DataType consumedDataType) {
                RowType type = (RowType) consumedDataType.getLogicalType();
                ColumnTypes.requireWritable(type, narrowsDoubles);
                return writerFactory(type, compression);
            }

            @Override
            public ChangelogMode getChangelogMode() {
                return ChangelogMode.insertOnly();
            }
        };
    }

    /** Travels to the tasks, so it refers to nothing but what a writer needs. */
    private static BulkWriter.Factory<RowData> writerFactory(RowType type, Compression compression) {
        return file -> new TfRecordWriter(file, type, compression);
    }

    /** The connector checks its own options only: a misspelt one would have no effect. */
    private void requireKnownOptions(DynamicTableFactory.Context context) {
        String prefix = IDENTIFIER + ".";
        Set<String> known =
                optionalOptions().stream().map(option -> prefix + option.key()).collect(Collectors.toSet());
        for (String key : context.getCatalogTable().getOptions().keySet()) {
            if (key.startsWith(prefix) && !known.contains(key)) {
                throw new ValidationException(
                        String.format("The format '%s' has no option '%s'; it has %s.", IDENTIFIER, key, known));
            }
        }
    }
}
