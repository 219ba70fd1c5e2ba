"""The gRPC adapter: Pulumi's provider protocol over plain dictionaries."""
