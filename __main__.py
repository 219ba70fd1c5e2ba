"""The program: a stack's configuration becomes one server, and what people need of it is exported."""

import pulumi
from pulumi_vllm import Server

config = pulumi.Config("pulumi-vllm")
keys = {name: pulumi.Output.secret(value) for name, value in (config.get_object("keys") or {}).items()}

args = {"server": config.require_object("server"), "keys": keys}
if token := config.get_secret("hfToken"):
    args["hf_token"] = token
server = Server("server", args)

pulumi.export("endpoint", server.endpoint)
pulumi.export("model", server.model)
pulumi.export("ca_certificate", server.ca_certificate)
pulumi.export("api_key", server.api_keys.apply(lambda by_name: next(iter(by_name.values()))))
pulumi.export("api_keys", server.api_keys)
pulumi.export("usd_per_hour", server.usd_per_hour)
pulumi.export("plan", server.plan)
pulumi.export("evidence", server.evidence)
pulumi.export("connection", server.connection_info)
