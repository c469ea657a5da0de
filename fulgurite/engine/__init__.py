"""One run from config to record: app, session, build, monitored metrics, outcome, out-of-memory retry."""
