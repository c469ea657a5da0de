"""One run from config to record: app, session, build, objective, outcome, out-of-memory retry."""
