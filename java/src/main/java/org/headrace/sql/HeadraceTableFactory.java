package org.headrace.sql;

import org.apache.flink.annotation.Internal;
import org.apache.flink.api.common.RuntimeExecutionMode;
import org.apache.flink.configuration.CheckpointingOptions;
import org.apache.flink.configuration.ConfigOption;
import org.apache.flink.configuration.ConfigOptions;
import org.apache.flink.configuration.ExecutionOptions;
import org.apache.flink.configuration.ReadableConfig;
import org.apache.flink.configuration.RestartStrategyOptions;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.node.ObjectNode;
import org.apache.flink.table.api.ValidationException;
import org.apache.flink.table.connector.sink.DynamicTableSink;
import org.apache.flink.table.factories.DynamicTableSinkFactory;
import org.apache.flink.table.factories.FactoryUtil;
import org.apache.flink.table.types.logical.RowType;

import org.headrace.json.Lines;

import java.util.HashSet;
import java.util.List;
import java.util.Set;

/** Makes {@code 'connector' = 'headrace'} known to Flink: a table that trains with what is inserted. */
@Internal
public final class HeadraceTableFactory implements DynamicTableSinkFactory {

    private static final String IDENTIFIER = "headrace";

    /** Which context the entry function gets. */
    enum Framework {
        PYTORCH,
        TENSORFLOW,
        NONE
    }

    private static final ConfigOption<Framework> FRAMEWORK =
            ConfigOptions.key("framework").enumType(Framework.class).noDefaultValue();
    private static final ConfigOption<String> ENTRY =
            ConfigOptions.key("entry")
                    .stringType()
                    .noDefaultValue()
                    .withDescription("'package.module:function' that trains.");
    private static final ConfigOption<Integer> WORKERS =
            ConfigOptions.key("workers").intType().defaultValue(1).withDescription("How many processes train.");
    private static final ConfigOption<Integer> EPOCHS =
            ConfigOptions.key("epochs").intType().defaultValue(1).withDescription("Passes over the rows.");
    private static final ConfigOption<String> OUTPUT_DIR =
            ConfigOptions.key("output-dir").stringType().noDefaultValue().withDescription("Where ctx.save writes.");
    private static final ConfigOption<String> CONFIG =
            ConfigOptions.key("config")
                    .stringType()
                    .noDefaultValue()
                    .withDescription("JSON object: what train() of the framework takes beyond that.");

    @Override
    public String factoryIdentifier() {
        return IDENTIFIER;
    }

    @Override
    public Set<ConfigOption<?>> requiredOptions() {
        return Set.of(FRAMEWORK, ENTRY);
    }

    @Override
    public Set<ConfigOption<?>> optionalOptions() {
        Set<ConfigOption<?>> options = new HashSet<>(SqlOptions.all());
        options.addAll(Set.of(WORKERS, EPOCHS, OUTPUT_DIR, CONFIG));
        return options;
    }

    @Override
    public DynamicTableSink createDynamicTableSink(Context context) {
        FactoryUtil.TableFactoryHelper helper = FactoryUtil.createTableFactoryHelper(this, context);
        SqlOptions.validate(helper);
        ReadableConfig options = helper.getOptions();
        ReadableConfig session = context.getConfiguration();
        requireStreamingMode(session);
        requireWordOnRestarts(session);
        String name = context.getObjectIdentifier().getObjectName();
        ObjectNode answer = SqlOptions.planningChild(options, session).ask(question(name, options));
        if (answer.path("has_exports").booleanValue()) {
            requireCheckpoints(name, session);
        }
        RowType type = (RowType) context.getPhysicalRowDataType().getLogicalType();
        return new TrainingSink(name, answer, SqlOptions.python(options, session), type);
    }

    private static ObjectNode question(String name, ReadableConfig options) {
        ObjectNode question = Lines.ofType("training").put("name", name);
        ObjectNode chosen = SqlOptions.putOptions(question, options, FRAMEWORK);
        for (ConfigOption<String> each : List.of(ENTRY, OUTPUT_DIR, CONFIG)) {
            options.getOptional(each).ifPresent(value -> chosen.put(each.key(), value));
        }
        chosen.put(WORKERS.key(), options.get(WORKERS));
        chosen.put(EPOCHS.key(), options.get(EPOCHS));
        return question;
    }

    private static void requireStreamingMode(ReadableConfig session) {
        RuntimeExecutionMode mode = session.get(ExecutionOptions.RUNTIME_MODE);
        if (mode != RuntimeExecutionMode.STREAMING) {
            throw new ValidationException(
                    String.format(
                            "'%s' is %s: Flink would schedule one region after another and never start an ML cluster"
                                    + " whole. Use STREAMING; bounded tables work there too.",
                            ExecutionOptions.RUNTIME_MODE.key(), mode));
        }
    }

    private static boolean hasCheckpoints(ReadableConfig session) {
        return session.getOptional(CheckpointingOptions.CHECKPOINTING_INTERVAL).isPresent();
    }

    private static void requireCheckpoints(String name, ReadableConfig session) {
        if (!hasCheckpoints(session)) {
            throw new ValidationException(
                    String.format(
                            "export_to in 'config' of table %s writes a model for each checkpoint of Flink's, and the"
                                    + " session makes none: SET '%s' = '1 min', for example.",
                            name, CheckpointingOptions.CHECKPOINTING_INTERVAL.key()));
        }
    }

    /** A restart goes on behind the last checkpoint, which may hold no model: nobody shall get that unasked. */
    private static void requireWordOnRestarts(ReadableConfig session) {
        if (hasCheckpoints(session) && session.getOptional(RestartStrategyOptions.RESTART_STRATEGY).isEmpty()) {
            throw new ValidationException(
                    String.format(
                            "Checkpoints are on, and so are restarts by default: a training would go on behind the"
                                    + " last checkpoint, which holds the model only where the entry function calls"
                                    + " ctx.checkpointed. SET '%s' = 'none', or name a strategy, such as"
                                    + " 'fixed-delay', if it does.",
                            RestartStrategyOptions.RESTART_STRATEGY.key()));
        }
    }
}
