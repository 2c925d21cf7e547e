"""The gRPC methods: each a function of the call and the request, found by name in `methods`."""
