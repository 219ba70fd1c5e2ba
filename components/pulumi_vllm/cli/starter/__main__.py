"""One served model. The stack file describes it under pulumi-vllm:server."""

from pulumi_vllm import Server

# API keys, a token of the model hub and a custom certificate come from the configuration too: see Server.from_config.
server = Server.from_config("server")
server.export_outputs()
