"""Clients of a running endpoint: smoke checks and a load generator. They know neither the host nor the cloud."""
