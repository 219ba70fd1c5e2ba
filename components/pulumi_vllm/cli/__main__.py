"""`python -m pulumi_vllm.cli`, the same as `pulumi-vllm`."""

import sys

from . import main

sys.exit(main())
