"""The table of resources, and the package's schema, which is generated from it."""

import json
from functools import cache
from typing import Any

from pulumi_vllm import __version__
from pulumi_vllm.provider.plugin.resource import Property, Resource
from pulumi_vllm.provider.resources.authority import ApiKey, Authority, Certificate
from pulumi_vllm.provider.resources.custom_certificate import CustomCertificate
from pulumi_vllm.provider.resources.files import Files
from pulumi_vllm.provider.resources.instance import Instance
from pulumi_vllm.provider.resources.machine import Machine
from pulumi_vllm.provider.resources.service import Service
from pulumi_vllm.provider.resources.ssh_key import SshKey
from pulumi_vllm.provider.resources.volume import Volume
from pulumi_vllm.provider.resources.volume_attachment import VolumeAttachment
from pulumi_vllm.provider.resources.weights import Weights

_CLASSES = (
    SshKey,
    Volume,
    Instance,
    VolumeAttachment,
    Machine,
    Files,
    Weights,
    Service,
    Authority,
    Certificate,
    CustomCertificate,
    ApiKey,
)
RESOURCES: dict[str, Resource] = {kind.token: kind() for kind in _CLASSES}

PLUGIN_URL = "https://pulumi-vllm.invalid/run_pulumi-vllm_init_in_the_project_folder"
"""A URL that can never resolve.

Without a URL, the engine would look for a plugin called vllm in a public repository, which is not ours. The engine
prints the URL when it finds no plugin, in programs of every language, so it contains the command to run.
"""


def package_schema() -> str:
    """Return the schema of the package, including the component, as JSON."""
    # This loads the SDK, which no other request needs.
    from pulumi_vllm.provider.plugin.construct import component_schema

    schema = custom_schema()
    component = component_schema()
    schema["resources"] |= component.get("resources", {})
    schema["types"] = component.get("types", {})
    return json.dumps(schema)


@cache
def _custom() -> str:
    resources = {token: _resource(resource) for token, resource in RESOURCES.items()}
    # Without names of their own, the Python SDK would be called pulumi_vllm, as this distribution is, and installing it
    # would remove the plugin; the Node.js SDK would be called @pulumi/vllm, in the scope of somebody else.
    python = {"respectSchemaVersion": True, "packageName": "pulumi_vllm_sdk", "pyproject": {"enabled": True}}
    nodejs = {"respectSchemaVersion": True, "packageName": "pulumi-vllm-sdk"}
    config = {
        "spheronApiKey": {
            "type": "string",
            "secret": True,
            "description": "API key for Spheron. Default: the environment variable SPHERON_API_KEY.",
        },
        "spheronUrl": {
            "type": "string",
            "description": "Base URL of the Spheron API. Default: the environment variable SPHERON_URL, "
            "or the public API.",
        },
    }
    schema = {
        "name": "vllm",
        "displayName": "vLLM on rented GPUs",
        "version": __version__,
        "description": "Serve an open-weight LLM with vLLM on rented GPUs.",
        "license": "Apache-2.0",
        "pluginDownloadURL": PLUGIN_URL,
        "language": {"python": python, "nodejs": nodejs, "go": {"respectSchemaVersion": True}},
        "config": {"variables": config},
        "provider": {"inputProperties": config},
        "resources": resources,
    }
    return json.dumps(schema)


def custom_schema() -> dict[str, Any]:
    """Return the schema of the custom resources. This does not load the SDK."""
    parsed: dict[str, Any] = json.loads(_custom())
    return parsed


def _resource(resource: Resource) -> dict[str, Any]:
    inputs = {name: _property(prop) for name, prop in resource.inputs.items()}
    kept = {name: described for name, described in inputs.items() if name not in resource.input_only}
    outputs = {name: _property(prop) for name, prop in resource.outputs.items()}
    required = sorted(name for name, prop in resource.inputs.items() if prop.required)
    return {
        "description": resource.description,
        "inputProperties": inputs,
        "requiredInputs": required,
        "properties": kept | outputs,
        "required": [name for name in required if name in kept],
    }


def _property(prop: Property) -> dict[str, Any]:
    described: dict[str, Any] = {"type": prop.type, "description": prop.description}
    if prop.type == "object":
        described["additionalProperties"] = _element(prop.of)
    if prop.type == "array":
        described["items"] = _element(prop.of)
    if prop.secret:
        described["secret"] = True
    if prop.replaces:
        described["willReplaceOnChanges"] = True
    return described


def _element(name: str | None) -> dict[str, str]:
    return {"$ref": "pulumi.json#/Any"} if name in {None, "any"} else {"type": str(name)}
