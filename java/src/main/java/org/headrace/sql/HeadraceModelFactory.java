package org.headrace.sql;

import org.apache.flink.annotation.Internal;
import org.apache.flink.configuration.ConfigOption;
import org.apache.flink.configuration.ConfigOptions;
import org.apache.flink.configuration.ReadableConfig;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.node.ArrayNode;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.node.ObjectNode;
import org.apache.flink.table.api.ValidationException;
import org.apache.flink.table.api.config.ExecutionConfigOptions;
import org.apache.flink.table.catalog.ResolvedSchema;
import org.apache.flink.table.factories.FactoryUtil;
import org.apache.flink.table.factories.ModelProviderFactory;
import org.apache.flink.table.ml.ModelProvider;
import org.apache.flink.table.types.logical.RowType;

import org.headrace.json.Lines;
import org.headrace.plan.ClusterPlan;
import org.headrace.plan.RolePlan;

import java.time.Duration;
import java.util.HashSet;
import java.util.List;
import java.util.Set;

/** Makes {@code 'provider' = 'headrace'} known to Flink: models that score in processes beside its subtasks. */
@Internal
public final class HeadraceModelFactory implements ModelProviderFactory {

    /** How many rows Flink hands a function before it waits for the first one's scores, unless a query says so. */
    static final ConfigOption<Integer> IN_FLIGHT =
            ExecutionConfigOptions.TABLE_EXEC_ASYNC_ML_PREDICT_MAX_CONCURRENT_OPERATIONS;

    private static final String IDENTIFIER = "headrace";

    /** How models are read. */
    enum Framework {
        PYTORCH,
        TENSORFLOW,
        PYTHON
    }

    /** What becomes of a row that cannot be scored. */
    enum OnError {
        FAIL,
        NULL
    }

    /** What a worker computes on. */
    enum Device {
        AUTO,
        CPU,
        CUDA
    }

    private static final ConfigOption<Framework> FRAMEWORK =
            ConfigOptions.key("framework").enumType(Framework.class).noDefaultValue();
    private static final ConfigOption<String> PATH = text("path", "File or directory of the model: absolute, or a URI.");
    private static final ConfigOption<String> MODULE =
            text("module", "'package.module:Class' that makes the module of a state dict.");
    private static final ConfigOption<String> SIGNATURE = text("signature", "Which signature of a SavedModel to call.");
    private static final ConfigOption<String> FACTORY =
            text("factory", "'package.module:function' that returns the function which scores.");
    private static final ConfigOption<String> INPUTS = text("inputs", "JSON: what of the columns goes into the model.");
    private static final ConfigOption<Integer> BATCH_ROWS =
            ConfigOptions.key("batch-rows").intType().defaultValue(1024).withDescription("Most rows in one call.");
    private static final ConfigOption<Duration> LINGER =
            ConfigOptions.key("linger")
                    .durationType()
                    .defaultValue(Duration.ZERO)
                    .withDescription("How long a batch that is not full waits for more rows.");
    private static final ConfigOption<OnError> ON_ERROR =
            ConfigOptions.key("on-error").enumType(OnError.class).defaultValue(OnError.FAIL);
    private static final ConfigOption<String> ERROR_COLUMN =
            text("error-column", "STRING column of the OUTPUT that says why a row has no scores.");
    private static final ConfigOption<String> VERSION_COLUMN =
            text("version-column", "TIMESTAMP_LTZ(3) column of the OUTPUT that says which version of the model scored.");
    private static final ConfigOption<Duration> RELOAD_EVERY =
            ConfigOptions.key("reload-every")
                    .durationType()
                    .noDefaultValue()
                    .withDescription("How often to look for a new version of the model; without it never.");
    private static final ConfigOption<Device> DEVICE =
            ConfigOptions.key("device").enumType(Device.class).defaultValue(Device.AUTO);
    private static final ConfigOption<Integer> THREADS =
            ConfigOptions.key("threads")
                    .intType()
                    .noDefaultValue()
                    .withDescription("With how many threads a worker computes.");

    private static ConfigOption<String> text(String key, String description) {
        return ConfigOptions.key(key).stringType().noDefaultValue().withDescription(description);
    }

    @Override
    public String factoryIdentifier() {
        return IDENTIFIER;
    }

    @Override
    public Set<ConfigOption<?>> requiredOptions() {
        return Set.of(FRAMEWORK);
    }

    @Override
    public Set<ConfigOption<?>> optionalOptions() {
        Set<ConfigOption<?>> options = new HashSet<>(SqlOptions.all());
        options.addAll(
                Set.of(
                        PATH,
                        MODULE,
                        SIGNATURE,
                        FACTORY,
                        INPUTS,
                        BATCH_ROWS,
                        LINGER,
                        ON_ERROR,
                        ERROR_COLUMN,
                        VERSION_COLUMN,
                        RELOAD_EVERY,
                        DEVICE,
                        THREADS));
        return options;
    }

    @Override
    public ModelProvider createModelProvider(Context context) {
        FactoryUtil.ModelProviderFactoryHelper helper = FactoryUtil.createModelProviderFactoryHelper(this, context);
        SqlOptions.validate(helper);
        ReadableConfig options = helper.getOptions();
        ReadableConfig session = context.getConfiguration();
        RowType inputs = rowType(context.getCatalogModel().getResolvedInputSchema());
        RowType outputs = rowType(context.getCatalogModel().getResolvedOutputSchema());
        String name = context.getObjectIdentifier().getObjectName();
        ObjectNode answer =
                SqlOptions.planningChild(options, session).ask(question(name, options, inputs, outputs));
        ClusterPlan cluster =
                ClusterPlan.parse(
                        Lines.requireObject(answer, "cluster").toString(), SqlOptions.python(options, session));
        ObjectNode role = Lines.requireObject(answer, "role");
        String document = Lines.requireObject(role, "document").toString();
        byte[] payload = PlanningChild.payload(role);
        return new HeadraceModelProvider(
                cluster, RolePlan.parse(document, payload, inputs, outputs), session.get(IN_FLIGHT));
    }

    private static ObjectNode question(String name, ReadableConfig options, RowType inputs, RowType outputs) {
        ObjectNode question = Lines.ofType("model").put("name", name);
        putColumns(question.putArray("inputs"), inputs);
        putColumns(question.putArray("outputs"), outputs);
        ObjectNode chosen = SqlOptions.putOptions(question, options, FRAMEWORK);
        for (ConfigOption<String> each : List.of(PATH, MODULE, SIGNATURE, FACTORY, INPUTS, ERROR_COLUMN, VERSION_COLUMN)) {
            options.getOptional(each).ifPresent(value -> chosen.put(each.key(), value));
        }
        chosen.put(BATCH_ROWS.key(), options.get(BATCH_ROWS));
        chosen.put("linger-ms", millis(LINGER, options.get(LINGER)));
        options.getOptional(RELOAD_EVERY).ifPresent(value -> chosen.put("reload-every-ms", millis(RELOAD_EVERY, value)));
        chosen.put(ON_ERROR.key(), SqlOptions.word(options.get(ON_ERROR)));
        chosen.put(DEVICE.key(), SqlOptions.word(options.get(DEVICE)));
        options.getOptional(THREADS).ifPresent(value -> chosen.put(THREADS.key(), value));
        return question;
    }

    private static void putColumns(ArrayNode columns, RowType type) {
        for (RowType.RowField each : type.getFields()) {
            columns.addObject().put("name", each.getName()).put("type", each.getType().asSummaryString());
        }
    }

    private static long millis(ConfigOption<Duration> option, Duration value) {
        if (value.toMillis() == 0 && !value.isZero()) {
            throw new ValidationException(
                    String.format(
                            "'%s' = '%s ns' would become 0 ms: whole milliseconds are counted.",
                            option.key(), value.toNanos()));
        }
        return value.toMillis();
    }

    private static RowType rowType(ResolvedSchema schema) {
        return (RowType) schema.toPhysicalRowDataType().getLogicalType();
    }
}
