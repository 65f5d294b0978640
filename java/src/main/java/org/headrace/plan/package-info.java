/** What the plan ships to the operators. */
package org.headrace.plan;
