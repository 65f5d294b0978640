package org.headrace.operator;

import org.apache.flink.api.common.functions.OpenContext;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.streaming.api.datastream.SingleOutputStreamOperator;
import org.apache.flink.streaming.api.functions.ProcessFunction;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.data.utils.ProjectedRowData;
import org.apache.flink.table.runtime.typeutils.InternalTypeInfo;
import org.apache.flink.table.types.logical.RowType;
import org.apache.flink.util.Collector;
import org.apache.flink.util.OutputTag;

import java.util.Arrays;
import java.util.List;

/**
 * Divides rows by a column that says why a row is no good: those without a reason go on, those with one
 * go to a side output. Chained to what makes the rows; keeps their order, timestamps and watermarks.
 */
final class Rejection {

    private Rejection() {}

    /**
     * Two streams, the good rows and the rejected ones.
     *
     * @param uid of the operator
     * @param type columns of {@code rows}
     * @param reason name of the column that says why
     * @param good the columns of the first stream, by their names in {@code type}
     * @param rejected the columns of the second stream, likewise
     */
    static List<DataStream<RowData>> divide(
            DataStream<RowData> rows, String uid, RowType type, String reason, RowType good, RowType rejected) {
        OutputTag<RowData> tag = new OutputTag<>("rejected", InternalTypeInfo.of(rejected));
        Divider divider = new Divider(type.getFieldIndex(reason), places(type, good), places(type, rejected), tag);
        SingleOutputStreamOperator<RowData> first =
                rows.process(divider, InternalTypeInfo.of(good))
                        .name("divide by " + reason)
                        .uid(uid)
                        .setParallelism(rows.getParallelism());
        return List.of(first, first.getSideOutput(tag));
    }

    private static int[] places(RowType type, RowType part) {
        return part.getFieldNames().stream().mapToInt(type::getFieldIndex).toArray();
    }

    private static final class Divider extends ProcessFunction<RowData, RowData> {

        private static final long serialVersionUID = 1L;

        private final int reason;
        private final int[] good;
        private final int[] rejected;
        private final OutputTag<RowData> tag;
        private transient ProjectedRowData goodRow;
        private transient ProjectedRowData rejectedRow;

        Divider(int reason, int[] good, int[] rejected, OutputTag<RowData> tag) {
            this.reason = reason;
            this.good = Arrays.copyOf(good, good.length);
            this.rejected = Arrays.copyOf(rejected, rejected.length);
            this.tag = tag;
        }

        @Override
        public void open(OpenContext context) {
            goodRow = ProjectedRowData.from(good);
            rejectedRow = ProjectedRowData.from(rejected);
        }

        @Override
        public void processElement(RowData row, Context context, Collector<RowData> out) {
            if (row.isNullAt(reason)) {
                out.collect(goodRow.replaceRow(row));
            } else {
                context.output(tag, rejectedRow.replaceRow(row));
            }
        }
    }
}
