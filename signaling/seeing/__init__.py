"""What a node tells its operator: metrics, logs, traces, the audit log, and whether it wants more sessions."""
