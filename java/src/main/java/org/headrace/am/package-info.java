/** The application master's operator: its source, its coordinator and the control stream. */
package org.headrace.am;
