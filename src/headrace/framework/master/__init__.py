"""The master process: gRPC service, state machine, lines to the JVM."""
