package org.headrace.json;

import org.apache.flink.annotation.Internal;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.core.JsonProcessingException;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.JsonNode;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.ObjectMapper;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.node.ObjectNode;

/** JSON objects as single lines of text: docs/lifecycle.md, sections 1 and 2. */
@Internal
public final class Lines {

    private static final ObjectMapper MAPPER = new ObjectMapper();

    private Lines() {}

    /** An empty line of this type. */
    public static ObjectNode ofType(String type) {
        return MAPPER.createObjectNode().put("type", type);
    }

    /**
     * Parses one JSON object.
     *
     * @throws IllegalArgumentException if the text is not a JSON object
     */
    public static ObjectNode parse(String text) {
        try {
            JsonNode node = MAPPER.readTree(text);
            if (node instanceof ObjectNode) {
                return (ObjectNode) node;
            }
        } catch (JsonProcessingException e) {
            throw new IllegalArgumentException("Not a JSON object: " + shorten(text), e);
        }
        throw new IllegalArgumentException("Not a JSON object: " + shorten(text));
    }

    /** The value of a text field. */
    public static String requireText(ObjectNode line, String field) {
        JsonNode value = line.get(field);
        if (value == null || !value.isTextual()) {
            throw new IllegalArgumentException("Field '" + field + "' is missing: " + shorten(line.toString()));
        }
        return value.textValue();
    }

    /** The value of a whole-number field. */
    public static int requireInt(ObjectNode line, String field) {
        JsonNode value = line.get(field);
        if (value == null || !value.canConvertToInt()) {
            throw new IllegalArgumentException("Field '" + field + "' is missing: " + shorten(line.toString()));
        }
        return value.intValue();
    }

    /** The value of a field that is an object. */
    public static ObjectNode requireObject(ObjectNode line, String field) {
        JsonNode value = line.get(field);
        if (!(value instanceof ObjectNode)) {
            throw new IllegalArgumentException("Field '" + field + "' is missing: " + shorten(line.toString()));
        }
        return (ObjectNode) value;
    }

    private static String shorten(String text) {
        return text.length() <= 200 ? text : text.substring(0, 200) + "...";
    }
}
