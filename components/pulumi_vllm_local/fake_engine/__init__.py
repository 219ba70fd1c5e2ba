"""A fake vLLM that computes nothing and answers in the same format. It needs the standard library only."""

import shutil

# The version that the stack asks for: that of the GPU engine where there is an nvidia-smi, else that of the CPU engine.
__version__ = "0.26.0" if shutil.which("nvidia-smi") else "0.32.0"
