"""What a Pulumi program imports: Server, its arguments, keys, certificates and commands."""
