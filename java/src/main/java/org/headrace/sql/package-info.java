/** Headrace in pure SQL: a model provider and a table sink. Python plans what the operators carry. */
package org.headrace.sql;
