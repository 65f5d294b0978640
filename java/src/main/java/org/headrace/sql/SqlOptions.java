package org.headrace.sql;

import org.apache.flink.configuration.ConfigOption;
import org.apache.flink.configuration.ConfigOptions;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.configuration.ReadableConfig;
import org.apache.flink.python.PythonOptions;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.node.ObjectNode;
import org.apache.flink.table.api.ValidationException;
import org.apache.flink.table.factories.FactoryUtil;

import java.time.Duration;
import java.util.List;
import java.util.Locale;
import java.util.Optional;
import java.util.Set;

/** The WITH options that models and sinks share: which Python plans and runs, and with which files. */
final class SqlOptions {

    static final ConfigOption<String> EXECUTABLE =
            ConfigOptions.key("python.executable")
                    .stringType()
                    .noDefaultValue()
                    .withDescription("Python interpreter of the workers, and of the planning.");

    static final ConfigOption<String> CLIENT_EXECUTABLE =
            ConfigOptions.key("python.client.executable")
                    .stringType()
                    .noDefaultValue()
                    .withDescription("Python interpreter of the planning, where it is another one.");

    static final ConfigOption<List<String>> FILES =
            ConfigOptions.key("python.files")
                    .stringType()
                    .asList()
                    .defaultValues()
                    .withDescription("Directories and zip files, appended to PYTHONPATH here and on the workers.");

    static final ConfigOption<Duration> PLANNING_TIMEOUT =
            ConfigOptions.key("planning-timeout")
                    .durationType()
                    .defaultValue(Duration.ofMinutes(2))
                    .withDescription("How long the planning may take in Python, with its imports.");

    private static final String DEFAULT_EXECUTABLE = "python3";

    private SqlOptions() {}

    static Set<ConfigOption<?>> all() {
        return Set.of(EXECUTABLE, CLIENT_EXECUTABLE, FILES, PLANNING_TIMEOUT);
    }

    /** Has Flink check names and types; what it says of a value comes to stand beside the name of the option. */
    static void validate(FactoryUtil.FactoryHelper<?> helper) {
        try {
            helper.validate();
        } catch (ValidationException e) {
            if (e.getCause() == null) {
                throw e;
            }
            Throwable first = e;
            while (first.getCause() != null) {
                first = first.getCause();
            }
            throw new ValidationException(e.getMessage() + " " + first.getMessage());
        }
    }

    /** Begins the part {@code options} of a question with what models and sinks both have. */
    static <T extends Enum<T>> ObjectNode putOptions(
            ObjectNode question, ReadableConfig options, ConfigOption<T> framework) {
        ObjectNode chosen = question.putObject("options");
        chosen.put(framework.key(), word(options.get(framework)));
        options.get(FILES).forEach(chosen.putArray(FILES.key())::add);
        return chosen;
    }

    /** A choice as Python spells it. */
    static String word(Enum<?> value) {
        return value.name().toLowerCase(Locale.ROOT);
    }

    /** Flink's settings of the workers' Python. */
    static Configuration python(ReadableConfig options, ReadableConfig session) {
        Configuration python = new Configuration();
        python.set(PythonOptions.PYTHON_EXECUTABLE, executable(options, session));
        return python;
    }

    private static String executable(ReadableConfig options, ReadableConfig session) {
        return options.getOptional(EXECUTABLE)
                .or(() -> session.getOptional(PythonOptions.PYTHON_EXECUTABLE))
                .orElse(DEFAULT_EXECUTABLE);
    }

    /** The process that plans. */
    static PlanningChild planningChild(ReadableConfig options, ReadableConfig session) {
        Optional<String> interpreter =
                options.getOptional(CLIENT_EXECUTABLE)
                        .or(() -> options.getOptional(EXECUTABLE))
                        .or(() -> session.getOptional(PythonOptions.PYTHON_CLIENT_EXECUTABLE));
        return new PlanningChild(
                interpreter.orElseGet(() -> executable(options, session)),
                options.get(FILES),
                options.get(PLANNING_TIMEOUT));
    }
}
