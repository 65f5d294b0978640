package org.headrace.process;

import org.apache.flink.configuration.Configuration;

import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;

/**
 * Makes keystores and reads them as the operators do, for Python's tests: one command per line on stdin,
 * one answer per line on stdout ("ok ..." or "error ..."), fields separated by tabs.
 *
 * <p>{@code keytool ARGUMENT...} is the JDK's, in this JVM: a process for each would cost the tests seconds.
 * {@code export DIRECTORY KEY=VALUE...} writes the PEM files of Flink's settings, and answers with the name.
 */
public final class TlsServer {

    private TlsServer() {}

    public static void main(String[] args) throws Exception {
        BufferedReader commands = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        PrintStream answers = new PrintStream(System.out, true, StandardCharsets.UTF_8);
        System.setOut(System.err);
        for (String line = commands.readLine(); line != null; line = commands.readLine()) {
            String[] command = line.split("\t");
            String[] rest = Arrays.copyOfRange(command, 1, command.length);
            try {
                answers.println("ok " + (command[0].equals("keytool") ? keytool(rest) : export(rest)));
            } catch (TlsSettingsException e) {
                answers.println("error " + e.getMessage());
            }
        }
    }

    private static String keytool(String[] arguments) throws Exception {
        Class.forName("sun.security.tools.keytool.Main")
                .getMethod("main", String[].class)
                .invoke(null, (Object) arguments);
        return "";
    }

    private static String export(String[] arguments) throws IOException {
        Configuration flink = new Configuration();
        for (String each : Arrays.copyOfRange(arguments, 1, arguments.length)) {
            String[] pair = each.split("=", 2);
            flink.setString(pair[0], pair[1]);
        }
        InternalTls tls = InternalTls.read(flink);
        Path directory = Path.of(arguments[0]);
        Files.writeString(directory.resolve("key.pem"), tls.key());
        Files.writeString(directory.resolve("chain.pem"), tls.chain());
        Files.writeString(directory.resolve("trusted.pem"), tls.trusted());
        return tls.name();
    }
}
