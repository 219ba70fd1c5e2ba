"""`pulumi-vllm schema`: print or write the JSON Schema of stack files and the reference that goes with it."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from pulumi_vllm.plan.stack_file_keys import Key

SCHEMA_FILE: Final = "pulumi-vllm.schema.json"
"""Name of the schema's file, beside the stack files."""

REFERENCE: Final = Path("docs/reference/stack-file.md")

# In one place: stack files and `init` write it as their first line.
EDITOR_LINE: Final = f"# yaml-language-server: $schema={SCHEMA_FILE}\n"

_INTRODUCTION: Final = """\
# Stack file

A stack file is Pulumi's configuration of one stack. Everything that this package reads from it is below. The server is
the block `pulumi-vllm:server` under `config`.

Editors with a YAML language server complete and check the keys: each stack file names the JSON Schema in its first
line. `pulumi-vllm schema` prints the schema. This page is generated from the same source by
`pulumi-vllm schema --write`.
"""

_OTHER_KEYS: Final = """
## Other configuration

The program `Server.from_config` also reads these keys of the namespace `pulumi-vllm`. Set the secrets with
`pulumi config set --secret`.

| key | value |
|---|---|
| `pulumi-vllm:keys` | map of API keys by name (secret); a name of `access.keys` without a value gets a random key |
| `pulumi-vllm:hfToken` | token for the model hub (secret), for gated repositories |
| `pulumi-vllm:host` | for `cloud: none`: `address`; `port`, `user`, `host_key`, `triggers`, `private_key_file` |
| `pulumi-vllm:hostPrivateKey` | private SSH key for that machine (secret), in place of `private_key_file` |
| `pulumi-vllm:notifyUrl` | address that gets a POST when vLLM or the gateway has failed for good (secret) |
| `pulumi-vllm:tlsCertificate` | custom certificate with its chain, PEM; needs `access.hostname` |
| `pulumi-vllm:tlsPrivateKey` | private key of that certificate, PEM (secret) |
"""


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `schema`."""
    text = "print the JSON Schema of stack files, for editors and CI"
    parser = commands.add_parser("schema", help=text, description=f"{text[0].upper()}{text[1:]}.")
    parser.add_argument(
        "--write",
        action="store_true",
        help=f"in a checkout of this package: write stacks/{SCHEMA_FILE} and {REFERENCE} instead",
    )
    parser.add_argument(
        "--model", action="store_true", help="print that of model files, models/NAME.yaml, instead"
    )
    parser.add_argument("--gpu", action="store_true", help="print that of GPU files, gpus/NAME.yaml, instead")
    parser.set_defaults(run=_schema)


def _schema(parsed: argparse.Namespace) -> int:
    if parsed.model:
        print(model_schema_text(), end="")
    elif parsed.gpu:
        print(gpu_schema_text(), end="")
    elif parsed.write:
        for path, text in ((Path("stacks", SCHEMA_FILE), schema_text()), (REFERENCE, reference())):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            print(f"wrote {path}")
    else:
        print(schema_text(), end="")
    return 0


def schema_text() -> str:
    """Return the schema as the text of its file."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


def model_schema_text() -> str:
    """Return the JSON Schema of model files as the text of its file."""
    # `pulumi-vllm --help` loads this module too; pydantic takes 0.2 s to import.
    from pulumi_vllm.plan.model_schema import ModelFile

    return _file_schema(ModelFile.model_json_schema(), "Model file of pulumi-vllm")


def gpu_schema_text() -> str:
    """Return the JSON Schema of GPU files as the text of its file."""
    from pulumi_vllm.plan.gpu_schema import GpuFile  # pydantic, as above

    return _file_schema(GpuFile.model_json_schema(), "GPU file of pulumi-vllm")


def _file_schema(found: dict[str, Any], title: str) -> str:
    blocks = {name: _without_titles(block) for name, block in found.pop("$defs").items()}
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": title}
    whole = head | {**_without_titles(found), "$defs": blocks}
    return json.dumps(whole, indent=2, ensure_ascii=False) + "\n"


def schema() -> dict[str, Any]:
    """Return the JSON Schema of a whole stack file. Keys of other packages and of Pulumi are allowed."""
    # `pulumi-vllm --help` loads this module too; pydantic takes 0.2 s to import.
    from pulumi_vllm.plan.config import Deployment
    from pulumi_vllm.plan.stack_file_keys import keys

    server = Deployment.model_json_schema(by_alias=True)
    definitions = server.pop("$defs")
    for key in keys():
        *blocks, name = key.path.split(".")
        block = server
        for part in blocks:
            block = _resolve(block["properties"][part.removesuffix("[]")], definitions)
        block["properties"][name] = _described(block["properties"][name], key)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Stack file of pulumi-vllm",
        "type": "object",
        "properties": {
            "config": {"type": "object", "properties": {"pulumi-vllm:server": _without_titles(server)}},
            "secretsprovider": {"type": "string"},
            "encryptedkey": {"type": "string"},
            "encryptionsalt": {"type": "string"},
        },
        "$defs": {name: _without_titles(block) for name, block in definitions.items()},
    }


def _resolve(block: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    if "items" in block:  # a list of blocks, each of which may also be a bare name
        block = block["items"]["anyOf"][-1]
    found: dict[str, Any] = definitions[block["$ref"].rpartition("/")[2]]
    return found


def _described(block: dict[str, Any], key: "Key") -> dict[str, Any]:
    """Return the key's schema with a description that editors show."""
    sentences = [key.description]
    if key.unit:
        sentences.append(f"Unit: {key.unit}.")
    sentences.append(
        f"A change {key.change}."
        if not key.change.startswith("nothing")
        else "A change has no effect on the host."
    )
    rest = {name: value for name, value in block.items() if name not in {"change", "unit", "title"}}
    return {"description": " ".join(sentences), **rest}


def _without_titles(block: dict[str, Any]) -> dict[str, Any]:
    """Leave out the titles that pydantic derives from names: an editor would show them in place of the key."""
    properties = {
        name: {key: value for key, value in one.items() if key != "title"}
        for name, one in block["properties"].items()
    }
    return {key: value for key, value in block.items() if key != "title"} | {"properties": properties}


def reference() -> str:
    """Return the reference of the stack file, in Markdown."""
    # `pulumi-vllm --help` loads this module too; pydantic takes 0.2 s to import.
    from pulumi_vllm.plan.stack_file_keys import keys

    all_keys = list(keys())
    blocks = list(dict.fromkeys(key.path.rpartition(".")[0] for key in all_keys))
    text = _INTRODUCTION
    for block in blocks:
        rows = [key for key in all_keys if key.path.rpartition(".")[0] == block]
        text += f"\n## `{block}`\n" if block else "\n## `pulumi-vllm:server`\n"
        text += "\n| key | type | default | what a change does | meaning |\n|---|---|---|---|---|\n"
        text += "".join(map(_row, rows))
    return text + _OTHER_KEYS


def _row(key: "Key") -> str:
    kind = f"[block](#{key.path})" if key.type == "block" else key.type
    if key.unit:
        kind += f", {key.unit}"
    cells = (f"`{key.path}`", kind, _default(key), key.change, key.description)
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |\n"


def _default(key: "Key") -> str:
    if key.required:
        return "required"
    if key.type == "block":
        return "the defaults of its keys"
    if key.default is None:
        return "unset"
    return f"`{json.dumps(key.default)}`" if not isinstance(key.default, str) else f"`{key.default}`"
