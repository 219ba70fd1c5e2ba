"""`pulumi-vllm model add`: describe a published model in a file that a stack file can name."""

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pulumi_vllm.cli.terminal import UsageError, print_json, say

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pulumi_vllm.hub.hub_client import HubClient, HubFile
    from pulumi_vllm.plan.published_config import Published

_LOCAL_HUB: Final = "PULUMI_VLLM_LOCAL_HUB"
_SCHEMA: Final = "pulumi-vllm-model.schema.json"


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `model`, with its own command `add`."""
    text = "describe models that the catalogue does not have"
    model = commands.add_parser("model", help=text, description=f"{text[0].upper()}{text[1:]}.")
    inner = model.add_subparsers(title="commands", metavar="COMMAND", required=True)
    text = "write models/NAME.yaml from what a model hub publishes: pinned revision, exact bytes, dimensions"
    add = inner.add_parser("add", help=text, description=f"{text[0].upper()}{text[1:]}.")
    add.add_argument("repository", metavar="OWNER/NAME", help="repository at the model hub")
    add.add_argument(
        "--revision", metavar="REV", help="commit, branch or tag to pin (default: the newest commit)"
    )
    add.add_argument("--name", help="name of the model (default: that of the repository, in lower case)")
    add.add_argument(
        "--context", metavar="TOKENS", help="longest request that the vendor supports, for example 32Ki"
    )
    add.add_argument("--tool-call-parser", metavar="NAME", help="vLLM's parser of tool calls")
    add.add_argument("--reasoning-parser", metavar="NAME", help="vLLM's parser of reasoning")
    add.add_argument("--thinks", choices=("always", "on request", "never"), help="when the model reasons")
    add.add_argument("--folder", type=Path, help="where to write (default: models/ beside the stack files)")
    add.add_argument("--endpoint", metavar="URL", help="address of the model hub")
    add.add_argument("--force", action="store_true", help="replace a file that exists")
    add.add_argument("--json", action="store_true", help="print the content as JSON and write nothing")
    add.set_defaults(run=_add)


def _add(parsed: argparse.Namespace) -> int:
    # `pulumi-vllm --help` loads this module too; pydantic takes 0.2 s to import.
    from pulumi_vllm.cli.schema import model_schema_text
    from pulumi_vllm.plan import catalogue, model_schema, quantities
    from pulumi_vllm.plan.errors import ConfigError
    from pulumi_vllm.plan.own_models import FOLDER
    from pulumi_vllm.plan.published_config import Wishes, model_file

    try:
        context = None if parsed.context is None else quantities.tokens(parsed.context)
    except ValueError as error:
        raise UsageError(f"--context: {error}") from None
    wishes = Wishes(parsed.name, context, parsed.tool_call_parser, parsed.reasoning_parser, parsed.thinks)
    content = model_file(_read(parsed), wishes)
    problems = model_schema.problems(content, parsed.repository)
    if content["name"] in catalogue.load().models:
        problems += (
            f"{parsed.repository}: {content['name']} is in the catalogue; name it there, or choose --name",
        )
    if problems:
        raise ConfigError(problems)
    if parsed.json:
        print_json(content)
        return 0
    beside = Path("stacks") if Path("stacks").is_dir() else Path()
    folder: Path = parsed.folder or beside / FOLDER
    path = folder / f"{content['name']}.yaml"
    if path.exists() and not parsed.force:
        raise UsageError(f"{path}: exists; --force replaces it, --name writes another")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _SCHEMA).write_text(model_schema_text())
    path.write_text(f"# yaml-language-server: $schema={_SCHEMA}\n{written(content)}")
    say(f"wrote {path}; server.model: {content['name']} serves it")
    for sentence in content.get("unknown", ()):
        say(f"unknown: {sentence}")
    return 0


def _read(parsed: argparse.Namespace) -> "Published":
    """What the hub publishes about the repository."""
    # `pulumi-vllm --help` loads this module too; the client's TLS takes 0.05 s to import.
    from pulumi_vllm.hub.errors import HubError
    from pulumi_vllm.hub.hub_client import HubClient
    from pulumi_vllm.plan import defaults
    from pulumi_vllm.plan.published_config import Published, sized

    if parsed.repository.count("/") != 1:
        raise UsageError(f"{parsed.repository}: is not a repository; write OWNER/NAME, as the model hub does")
    endpoint = parsed.endpoint or os.environ.get(_LOCAL_HUB) or defaults.MODEL_HUB
    if not endpoint.startswith(("https://", "http://")):
        raise UsageError(f"--endpoint {endpoint}: is not an address; write for example {defaults.MODEL_HUB}")
    hub = HubClient(endpoint, parsed.repository, os.environ.get("HF_TOKEN"))
    about = hub.find_revision(parsed.revision)
    files = hub.files()
    names = {one.path for one in files}
    mistral = "params.json" in names and any(name.startswith("consolidated") for name in names)
    config_file = "params.json" if mistral else "config.json"
    if config_file not in names:
        raise HubError(
            f"{parsed.repository}: has no config.json at {hub.revision[:12]}; give a repository of a model"
        )
    exclude = tuple(_left_out(names, mistral=mistral))
    chosen = [one for one in files if not _matches(one.path, exclude)]
    weights = [one.path for one in chosen if one.path.endswith(".safetensors") and "/" not in one.path]
    if not weights:
        raise HubError(f"{parsed.repository}: has no safetensors files; give a repository that has them")
    say(f"reading the headers of {len(weights)} files at {hub.revision}")
    tensors = sized(tensor for path in sorted(weights) for tensor in hub.tensors(path))
    return Published(
        repository=parsed.repository,
        revision=hub.revision,
        config=hub.json_file(config_file),
        mistral_format=mistral,
        tensors=tensors,
        download_bytes=sum(one.size for one in chosen),
        exclude=exclude,
        template=_template(hub, files, mistral=mistral),
        license=_licence(about),
    )


def _left_out(names: set[str], *, mistral: bool) -> "Iterator[str]":
    """Patterns of files that vLLM does not load: the same weights in another format, and other programs' files."""
    if mistral and any(name.startswith("model") and name.endswith(".safetensors") for name in names):
        yield from ("model-*.safetensors", "model.safetensors", "model.safetensors.index.json")
    if not mistral and any(name.startswith("consolidated") for name in names):
        yield "consolidated*"
    for pattern in ("original/*", "metal/*", "onnx/*", "*.gguf", "*.pth", "*.bin", "*.pt"):
        if any(_matches(name, (pattern,)) for name in names):
            yield pattern


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    # Only this function needs it.
    from fnmatch import fnmatchcase

    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _template(hub: "HubClient", files: "tuple[HubFile, ...]", *, mistral: bool) -> str:
    """The chat template, wherever the repository keeps it."""
    names = {one.path for one in files}
    if mistral:
        return "tools [MODEL_SETTINGS]" if "SYSTEM_PROMPT.txt" in names or "tekken.json" in names else "tools"
    if "chat_template.jinja" in names:
        return hub.text_file("chat_template.jinja")
    if "tokenizer_config.json" in names:
        return str(hub.json_file("tokenizer_config.json").get("chat_template") or "")
    return ""


def _licence(about: "Mapping[str, Any]") -> str:
    tags = (str(tag) for tag in about.get("tags") or ())
    return next((tag.removeprefix("license:") for tag in tags if tag.startswith("license:")), "")


def written(content: "Mapping[str, Any]") -> str:
    """A model file's content as YAML: a line for each key, blocks of one line inside."""
    # Only this function needs it.
    import yaml

    def line(value: Any) -> str:
        text = yaml.safe_dump(
            value, default_flow_style=True, sort_keys=False, width=10_000, allow_unicode=True
        )
        return str(text.removesuffix("\n").removesuffix("\n..."))

    def block(values: "Mapping[str, Any]", indent: str) -> str:
        return "".join(
            f"{indent}{key}:\n{block(value, indent + '  ')}"
            if isinstance(value, dict) and key in {"dimensions", "precisions", *content["precisions"]}
            else f"{indent}{key}: {line(value)}\n"
            for key, value in values.items()
        )

    return block(content, "")
