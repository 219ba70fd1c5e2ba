"""A fake engine that answers like it, for guests in which nothing is computed. Standard library only."""

import shutil

# It takes the place of the version that the stack wants: the GPU engine beside an nvidia-smi, else the CPU engine.
__version__ = "0.26.0" if shutil.which("nvidia-smi") else "0.32.0"
