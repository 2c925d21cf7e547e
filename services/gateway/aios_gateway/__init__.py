"""The one door: gRPC API and HTTP ingress."""
