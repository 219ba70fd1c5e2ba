#!/bin/bash
# Run one build in its own mount and process namespace, so that its mounts and processes end with it, even if it is killed.
# usage: run-isolated.sh SCRIPT ARGS...
set -euo pipefail
if [[ ${PVLLM_ISOLATED:-} != 1 ]]; then
  export PVLLM_ISOLATED=1
  exec setpriv --pdeathsig KILL -- unshare --mount --pid --fork --kill-child --mount-proc --propagation private -- "$BASH" "$0" "$@"
fi
exec "$BASH" "$@"
