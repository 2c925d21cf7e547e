"""What drives a connector's declared actions: the ledger of effects, and the service around it."""
