"""Looking into a running server: state, suspending, traces, statistics."""
