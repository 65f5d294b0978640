/** The role operators, and the entry for Python that builds the job graph. */
package org.headrace.operator;
