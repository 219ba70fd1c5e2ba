"""Our SSH key at the cloud: made here unless one is given, registered under a name of our own."""

import contextlib

from pulumi_vllm.plan.names import is_ours, physical_name
from pulumi_vllm.provider.plugin.resource import Call, Property, Reading, Resource, UserError, Values, reveal


class SshKey(Resource):
    """`vllm:spheron:SshKey`."""

    token = "vllm:spheron:SshKey"
    description = (
        "An SSH key registered with the cloud; the private half is given, or made and kept as a secret."
    )
    inputs = {
        "privateKey": Property(
            "string",
            "PEM or OpenSSH private key (ed25519 or RSA, no passphrase). Left out: one is made and kept in state.",
            secret=True,
            replaces=True,
        )
    }
    outputs = {
        "keyId": Property("string", "The cloud's id of the key."),
        "keyName": Property("string", "Name at the cloud."),
        "publicKey": Property("string", "Public half in OpenSSH form."),
        "privateKeyPem": Property("string", "Private half in OpenSSH form.", secret=True),
    }

    async def create(self, call: Call, new: Values) -> tuple[str, Values]:
        """Register the key, or adopt the registration of the very same key."""
        given = reveal(new.get("privateKey"))
        private = _private_key(call, given) if given else _make()
        public = _public(private)
        name = physical_name(call.stack, call.name, call.urn, public)
        cloud = call.session.cloud()
        for key in await call.session.ask(cloud.ssh_keys.list):
            if key.public_key and key.public_key.split()[:2] == public.split()[:2]:
                return key.id, self._outputs(key.id, key.name, public, private)
        async with call.session.critical():
            key = await call.session.ask(cloud.ssh_keys.create, name, public)
        return key.id, self._outputs(key.id, name, public, private)

    async def read(self, call: Call, resource_id: str, state: Values, inputs: Values) -> Reading | None:
        """Gone when the cloud no longer lists it."""
        keys = await call.session.ask(call.session.cloud().ssh_keys.list)
        if resource_id not in {key.id for key in keys}:
            return None
        return Reading({name: state.get(name) for name in self.outputs}, inputs)

    async def delete(self, call: Call, resource_id: str, state: Values) -> None:
        """Remove the registration, but never one that somebody else made."""
        if is_ours(state.get("keyName")):
            await call.session.ask(call.session.cloud().ssh_keys.delete, resource_id)

    def _outputs(self, key_id: str, name: str, public: str, private: str) -> Values:
        return {"keyId": key_id, "keyName": name, "publicKey": public, "privateKeyPem": private}


def _make() -> str:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ed25519

    key = ed25519.Ed25519PrivateKey.generate()
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    ).decode()


def _private_key(call: Call, text: str) -> str:
    with contextlib.suppress(ValueError, TypeError):
        _public(text)
        return text
    raise UserError(
        f"{call.name}: the given private key can't be read; give an OpenSSH key without passphrase"
    )


def _public(private: str) -> str:
    from cryptography.hazmat.primitives import serialization

    data = private.encode()
    load = serialization.load_ssh_private_key if b"OPENSSH" in data else serialization.load_pem_private_key
    key = load(data, password=None)
    return (
        key.public_key()
        .public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
        .decode()
    )
