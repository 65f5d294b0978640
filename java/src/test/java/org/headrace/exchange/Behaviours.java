package org.headrace.exchange;

import java.io.PrintWriter;
import java.io.StringWriter;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.lang.reflect.Modifier;
import java.util.List;

/**
 * Runs every behaviour: a public static method without arguments of the classes named. For each one a
 * line "pass|fail TAB class TAB method TAB text" goes to stdout; pytest turns each into a test.
 */
public final class Behaviours {

    private Behaviours() {}

    public static void main(String[] classNames) throws ClassNotFoundException {
        for (String className : classNames) {
            for (Method method : Class.forName(className).getDeclaredMethods()) {
                if (Modifier.isPublic(method.getModifiers()) && method.getParameterCount() == 0) {
                    run(className, method);
                }
            }
        }
    }

    private static void run(String className, Method method) {
        String failure = "";
        try {
            method.invoke(null);
        } catch (InvocationTargetException e) {
            StringWriter trace = new StringWriter();
            e.getCause().printStackTrace(new PrintWriter(trace));
            failure = trace.toString();
        } catch (IllegalAccessException e) {
            failure = e.toString();
        }
        String line =
                String.join(
                        "\t",
                        failure.isEmpty() ? "pass" : "fail",
                        className,
                        method.getName(),
                        failure.replace("\n", "\\n").replace("\t", "  "));
        System.out.println(line);
    }

    public static void check(boolean holds, String what) {
        if (!holds) {
            throw new AssertionError(what);
        }
    }

    public static void checkEqual(Object found, Object expected) {
        if (!expected.equals(found)) {
            throw new AssertionError("found " + found + ", not " + expected);
        }
    }

    /** Something that may throw. */
    public interface Action {
        void run() throws Exception;
    }

    /** Runs {@code action}, which must throw this; its text must contain the parts. */
    public static <E extends Throwable> E checkThrows(
            Class<E> type, Action action, String... parts) {
        try {
            action.run();
        } catch (Throwable e) {
            Throwable cause = e;
            while (!type.isInstance(cause) && cause.getCause() != null) {
                cause = cause.getCause();
            }
            check(type.isInstance(cause), "threw " + e);
            for (String part : List.of(parts)) {
                check(cause.getMessage().contains(part), "text is: " + cause.getMessage());
            }
            return type.cast(cause);
        }
        throw new AssertionError("threw nothing, not " + type.getSimpleName());
    }
}
