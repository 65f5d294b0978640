"""Flight delays: two workers learn from flights that Flink SQL joins with weather."""
