"""What authors of agents and connectors import (`aios_sdk.connector`), what hosts them, and the conformance suite."""
