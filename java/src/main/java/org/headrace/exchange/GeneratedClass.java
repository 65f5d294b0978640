package org.headrace.exchange;

import org.codehaus.commons.compiler.CompileException;
import org.codehaus.janino.SimpleCompiler;

import java.util.List;
import java.util.Locale;

/**
 * Makes objects of classes that are written at run time, with the compiler that Flink's own generated
 * operators use. Each call compiles a class of its own, which goes with its object.
 */
final class GeneratedClass {

    /** The JIT refuses methods of more than 8,000 bytes of code. */
    private static final int STATEMENTS_PER_METHOD = 64;

    private GeneratedClass() {}

    /** As {@code String.format}, with digits that a compiler knows in every locale. */
    static String code(String format, Object... arguments) {
        return String.format(Locale.ROOT, format, arguments);
    }

    /**
     * Compiles a class with one method of its parent's, and calls its constructor without arguments.
     *
     * @param name Of the class.
     * @param parent Class that it extends.
     * @param method Modifier, type and name of the method.
     * @param parameters Its parameters, with their types.
     * @param arguments Their names.
     * @param locals Statements that those of {@code statements} need before them.
     * @param statements What it does, in order.
     */
    static <T> T instantiate(
            String name,
            Class<T> parent,
            String method,
            String parameters,
            String arguments,
            String locals,
            List<String> statements) {
        StringBuilder parts = new StringBuilder();
        StringBuilder calls = new StringBuilder();
        for (int from = 0; from < statements.size(); from += STATEMENTS_PER_METHOD) {
            int to = Math.min(from + STATEMENTS_PER_METHOD, statements.size());
            calls.append(code("part%d(%s);%n", from, arguments));
            parts.append(code("private void part%d(%s) {%n%s", from, parameters, locals))
                    .append(String.join("", statements.subList(from, to)))
                    .append("}\n");
        }
        String source =
                code(
                        "public final class %s extends %s {%n%s(%s) {%n%s}%n%s}%n",
                        name, parent.getName(), method, parameters, calls, parts);
        return instantiate(name, source, parent);
    }

    /** Compiles {@code source}, whose only class is {@code name}, and calls its constructor without arguments. */
    private static <T> T instantiate(String name, String source, Class<T> parent) {
        try {
            SimpleCompiler compiler = new SimpleCompiler();
            compiler.setParentClassLoader(parent.getClassLoader());
            compiler.cook(source);
            return compiler.getClassLoader()
                    .loadClass(name)
                    .asSubclass(parent)
                    .getDeclaredConstructor()
                    .newInstance();
        } catch (CompileException | ReflectiveOperationException e) {
            throw new IllegalStateException("generated code does not compile:\n" + source, e);
        }
    }
}
