"""Print how to send the model a request: greeting.py STACK CHECKOUT, with the stack's outputs as JSON on stdin."""

import json
import shlex
import sys
from pathlib import Path
from typing import Any


def greeting(outputs: dict[str, Any], stack: str, checkout: str) -> str:
    """Return the endpoint and a curl command for it.

    The command fetches the API key itself, so that the key is not printed.
    """
    where = shlex.quote(checkout)
    body = json.dumps({"model": outputs["model"], "messages": [{"role": "user", "content": "Hello"}]})
    key = f"$({where}/dev pulumi stack output api_key --show-secrets --stack {stack})"
    return (
        f"\n{_where(outputs)}\n\n"
        f"curl --cacert {where}/.pulumi-vllm/{stack}-ca.pem \\\n"
        f'  -H "Authorization: Bearer {key}" \\\n'
        f"  -H 'Content-Type: application/json' \\\n"
        f"  -d '{body}' \\\n"
        f"  {outputs['endpoint']}/chat/completions\n"
    )


def _where(outputs: dict[str, Any]) -> str:
    """Say that the endpoint answers only if `up` has tried it from here."""
    model, endpoint = outputs["model"], outputs["endpoint"]
    tried = str((outputs.get("evidence") or {}).get("endpoint") or "not tried")
    if tried.startswith("answered"):
        return f"{model} answers at {endpoint}"
    return f"{model} is served at {endpoint}; whether it answers from here was {tried}"


def main() -> int:
    """Write the CA certificate beside the state and print the greeting."""
    stack, checkout = sys.argv[1:]
    outputs = json.load(sys.stdin)
    missing = [name for name in ("endpoint", "model", "ca_certificate") if not outputs.get(name)]
    if missing:
        sys.stderr.write(
            f"stack {stack}: output missing: {', '.join(missing)}; list the outputs with: ./dev pulumi stack output\n"
        )
        return 1
    Path(".pulumi-vllm", f"{stack}-ca.pem").write_text(outputs["ca_certificate"], encoding="utf-8")
    sys.stdout.write(greeting(outputs, stack, checkout))
    return 0


if __name__ == "__main__":
    sys.exit(main())
