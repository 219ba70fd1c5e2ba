"""`python -m pulumi_vllm.cli`, the same as `pulumi-vllm`."""

import sys

from pulumi_vllm.cli import main

sys.exit(main())
