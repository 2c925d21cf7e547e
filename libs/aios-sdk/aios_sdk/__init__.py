"""What authors of agents and connectors import, with the conformance suite."""
