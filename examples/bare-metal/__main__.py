"""One served model on a machine that is there already. The stack file names both."""

from pulumi_vllm import Server

server = Server.from_config("llm")
server.export_outputs()
