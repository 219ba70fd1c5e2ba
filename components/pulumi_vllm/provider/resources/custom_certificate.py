"""A custom certificate for the gateway, validated before any other resource is created."""

from pulumi_vllm.provider.plugin.call import Call
from pulumi_vllm.provider.plugin.protocol import has_unknown, reveal
from pulumi_vllm.provider.plugin.resource import Failure, Property, Reading, Values
from pulumi_vllm.provider.resources.authority import RENEW_BEFORE_DAYS, StateOnlyResource, days_left


class CustomCertificate(StateOnlyResource):
    """`vllm:index:CustomCertificate`."""

    token = "vllm:index:CustomCertificate"
    description = (
        "A custom certificate for the gateway. Every preview validates its chain, key, dates and names."
    )
    inputs = {
        "certificate": Property("string", "Certificate in PEM format, followed by its chain.", required=True),
        "privateKey": Property(
            "string",
            "Private key of the certificate in PEM format, without a passphrase.",
            required=True,
            secret=True,
        ),
        "hostname": Property("string", "DNS name that clients use.", required=True),
    }
    outputs = {
        "pem": Property(
            "string", "Certificate, chain and private key in one PEM text, for HAProxy.", secret=True
        ),
        "chain": Property("string", "Certificate and chain in PEM format."),
        "expires": Property("string", "Date on which the first of the certificates expires (ISO 8601)."),
    }

    async def check(self, call: Call, new: Values, old: Values | None) -> list[Failure]:
        """Report every problem of the certificate. No message contains a part of the key."""
        # The plugin starts without cryptography, which takes 0.1 s to import.
        from pulumi_vllm.provider.resources.certificate_problems import (
            CONTAINS_KEY,
            PRIVATE_KEY_LABEL,
            problems,
        )

        certificate, key = str(reveal(new["certificate"])), str(reveal(new["privateKey"]))
        if has_unknown(new):
            return [Failure("", CONTAINS_KEY)] if PRIVATE_KEY_LABEL in certificate else []
        return [Failure("", problem) for problem in problems(certificate, key, str(new["hostname"]))]

    async def preview(self, call: Call, new: Values) -> Values:
        """Return the outputs if the inputs are known. None stands for an unknown output, in an update as well."""
        return dict.fromkeys(self.outputs) if has_unknown(new) else _outputs(new)

    async def create(self, call: Call, new: Values) -> tuple[str, Values]:
        """Write certificate, chain and key into one text."""
        return f"custom-{new['hostname']}", _outputs(new)

    async def update(self, call: Call, resource_id: str, old: Values, new: Values) -> Values:
        """Replace the texts."""
        return (await self.create(call, new))[1]

    async def read(self, call: Call, resource_id: str, state: Values, inputs: Values) -> Reading | None:
        """Warn before the certificate expires, because only the user can get a new one."""
        left = days_left(state)
        if left < RENEW_BEFORE_DAYS:
            await call.warn(
                f"the gateway's certificate expires on {state['expires']} (in {left} days); "
                "set a new one and run `pulumi up`"
            )
        return await super().read(call, resource_id, state, inputs)


def _outputs(new: Values) -> Values:
    # The plugin starts without cryptography, which takes 0.1 s to import.
    from pulumi_vllm.provider.resources.certificate_problems import outputs

    return outputs(str(reveal(new["certificate"])), str(reveal(new["privateKey"])))
