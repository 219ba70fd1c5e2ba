"""One served model. What it is stands in the stack file, under pulumi-vllm:server."""

import pulumi
from pulumi_vllm import Server, ServerArgs

config = pulumi.Config("pulumi-vllm")
# pulumi config set --secret --path 'pulumi-vllm:keys.team-a' VALUE
keys = {name: pulumi.Output.secret(value) for name, value in (config.get_object("keys") or {}).items()}
args: ServerArgs = {"server": config.require_object("server"), "keys": keys}
if token := config.get_secret("hfToken"):  # pulumi config set --secret pulumi-vllm:hfToken VALUE
    args["hf_token"] = token
# A certificate of your own, for server.access.hostname; left out, our own CA issues one.
# pulumi config set pulumi-vllm:tlsCertificate < fullchain.pem
# pulumi config set --secret pulumi-vllm:tlsPrivateKey < privkey.pem
if certificate := config.get("tlsCertificate"):
    args["tls_certificate"] = certificate
if private_key := config.get_secret("tlsPrivateKey"):
    args["tls_private_key"] = private_key
server = Server("llm", args)

pulumi.export("endpoint", server.endpoint)
pulumi.export("model", server.model)
pulumi.export("ca_certificate", server.ca_certificate)
pulumi.export("api_keys", server.api_keys)
pulumi.export("usd_per_hour", server.usd_per_hour)
