"""The JSON Schema and the reference of the stack file, against the parser and the stack files."""

import json
import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from pulumi_vllm.cli import main, schema
from pulumi_vllm.plan import plan, quantities
from pulumi_vllm.plan.config import Deployment
from pulumi_vllm.plan.errors import ConfigError
from pulumi_vllm.plan.stack_file_keys import keys

ROOT = Path(__file__).parents[2]
STACKS = sorted(ROOT.glob("stacks/Pulumi.*.yaml"))
# docs/how-to/clients.md has the configuration files of other programs.
DOCUMENTS = [
    ROOT / "README.md",
    *(page for page in sorted(ROOT.glob("docs/**/*.md")) if page.stem != "clients"),
]
VALIDATOR = jsonschema.Draft202012Validator(schema.schema())
BLOCK = yaml.safe_load((ROOT / "stacks/Pulumi.local.yaml").read_text())["config"]["pulumi-vllm:server"]


def accepts(block) -> bool:
    return VALIDATOR.is_valid({"config": {"pulumi-vllm:server": block}})


def test_the_written_files_are_up_to_date():
    remedy = "run: pulumi-vllm schema --write"
    assert (ROOT / "stacks" / schema.SCHEMA_FILE).read_text() == schema.schema_text(), remedy
    assert (ROOT / schema.REFERENCE).read_text() == schema.reference(), remedy


def test_the_command_prints_the_schema(capsys):
    assert main(["schema"]) == 0
    assert json.loads(capsys.readouterr().out) == schema.schema()


def test_importing_the_command_does_not_import_pydantic():
    code = "import sys, pulumi_vllm.cli.schema; sys.exit('pydantic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


@pytest.mark.parametrize("key", list(keys()), ids=lambda key: key.path)
def test_every_key_is_in_the_schema_and_the_reference(key):
    assert f"| `{key.path}` |" in schema.reference()
    found = schema.schema()
    block = found["properties"]["config"]["properties"]["pulumi-vllm:server"]
    *blocks, name = key.path.split(".")
    for part in blocks:
        below = block["properties"][part.removesuffix("[]")]
        if part.endswith("[]"):
            below = below["items"]["anyOf"][-1]
        block = found["$defs"][below["$ref"].rpartition("/")[2]]
    assert block["properties"][name]["description"].startswith(key.description)
    assert block["additionalProperties"] is False


@pytest.mark.parametrize("file", STACKS, ids=lambda file: file.stem)
def test_every_stack_file_is_valid_and_names_the_schema(file):
    text = file.read_text()
    assert text.startswith(schema.EDITOR_LINE)
    VALIDATOR.validate(yaml.safe_load(text))


def blocks_in_the_docs() -> list[dict]:
    """Every `yaml` example: a stack file, or some keys of its block. Files of other programs are `yml`."""
    documents = "".join(document.read_text() for document in DOCUMENTS)
    examples = map(yaml.safe_load, re.findall(r"```yaml\n(.*?)```", documents, re.DOTALL))
    return [
        example["config"]["pulumi-vllm:server"]
        if "config" in example
        else BLOCK
        | {
            key: BLOCK.get(key, {}) | value if isinstance(value, dict) else value
            for key, value in example.items()
        }
        for example in examples
    ]


@pytest.mark.parametrize("block", blocks_in_the_docs())
def test_every_example_in_the_docs_is_valid(block):
    assert accepts(block)
    assert plan(Deployment.parse(block))


def test_other_configuration_and_encryption_are_allowed():
    VALIDATOR.validate(
        {"encryptionsalt": "v1:x", "config": {"pulumi-vllm:server": BLOCK, "aws:region": "eu-west-1"}}
    )


@pytest.mark.parametrize(
    "block",
    [
        BLOCK | {"contxt": "32Ki"},
        BLOCK | {"machine": BLOCK["machine"] | {"gpus": 1}},
        BLOCK | {"gateway": {"max_body_mib": 0}},
        BLOCK | {"gateway": {"max_body": 1}},
        {key: value for key, value in BLOCK.items() if key != "model"},
    ],
)
def test_schema_and_parser_refuse_the_same_blocks(block):
    assert not accepts(block)
    with pytest.raises(ConfigError):
        Deployment.parse(block)


NUMBERS = st.integers(1, 100_000) | st.floats(1, 1e5, allow_nan=False).map(lambda value: round(value, 2))
UNITS = st.sampled_from(["", "k", "K", "Ki", "M", "Mi", "GB", "TB", "GiB", "TiB", "gb", "ki", "MB", "tokens"])


@pytest.mark.parametrize(
    ("key", "parse"), [("context", quantities.tokens), ("storage", quantities.gigabytes)]
)
@given(number=NUMBERS, unit=UNITS)
@example(number=32, unit="Ki")
@example(number=300, unit="GB")
def test_the_schema_accepts_the_units_that_the_parser_accepts(key, parse, number, unit):
    value = f"{number} {unit}" if unit else number
    try:
        parse(value)
        parsed = True
    except ValueError:
        parsed = False
    assert accepts(BLOCK | {key: value}) is parsed


@pytest.mark.parametrize("value", ["", "-1", "a lot", "32Kib", True, None, [], {}])
def test_schema_and_parser_refuse_the_same_values(value):
    assert not accepts(BLOCK | {"context": value})
    with pytest.raises(ValueError, match=r"is not|is empty"):
        quantities.tokens(value)
