"""The program: a stack's configuration becomes one server, and what people need of it is exported."""

from pathlib import Path

import pulumi
from pulumi_vllm import Server
from pulumi_vllm.plan import Deployment, PlanError, plan, stack_name

config, stack = pulumi.Config("pulumi-vllm"), pulumi.get_stack()
block = config.get_object("server")
if block is None:
    files = Path(__file__).with_name("stacks").glob("Pulumi.*.yaml")
    known = [file.name.removeprefix("Pulumi.").removesuffix(".yaml") for file in files]
    raise pulumi.RunError(stack_name.no_block(stack, known))
if mistakes := stack_name.contradictions(stack, block):
    try:
        plan(Deployment.parse(block))
    except PlanError as error:  # all mistakes at once
        mistakes += error.errors
    raise pulumi.RunError("\n".join(mistakes))
keys = {name: pulumi.Output.secret(value) for name, value in (config.get_object("keys") or {}).items()}

args = {"server": block, "keys": keys}
if token := config.get_secret("hfToken"):
    args["hf_token"] = token
if certificate := config.get("tlsCertificate"):
    args["tls_certificate"] = certificate
if private_key := config.get_secret("tlsPrivateKey"):
    args["tls_private_key"] = private_key
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
