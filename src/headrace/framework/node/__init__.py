"""The node process: runs the algorithm process of one subtask and answers for its end."""
