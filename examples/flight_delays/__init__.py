"""Flight delays: two PyTorch workers learn from flights that Flink SQL joins with weather."""
