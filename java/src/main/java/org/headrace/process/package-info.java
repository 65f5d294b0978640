/** Starts Python children of an operator, talks lines with them, and ends them on every path. */
package org.headrace.process;
