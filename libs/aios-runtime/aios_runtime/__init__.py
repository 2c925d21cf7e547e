"""What a service runs on: bus, store, telemetry, lifecycle."""
