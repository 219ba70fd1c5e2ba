"""The Pulumi plugin process: one thin gRPC adapter, one module per custom resource."""
