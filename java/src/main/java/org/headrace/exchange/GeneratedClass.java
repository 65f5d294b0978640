package org.headrace.exchange;

import org.codehaus.commons.compiler.CompileException;
import org.codehaus.janino.SimpleCompiler;

/**
 * Makes objects of classes that are written at run time, with the compiler that Flink's own generated
 * operators use. Each call compiles a class of its own, which goes with its object.
 */
final class GeneratedClass {

    /** Statements of one method: the JIT refuses methods of more than 8,000 bytes of code. */
    static final int STATEMENTS_PER_METHOD = 64;

    private GeneratedClass() {}

    /** Compiles {@code source}, whose only class is {@code name}, and calls its constructor without arguments. */
    static <T> T instantiate(String name, String source, Class<T> parent) {
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
