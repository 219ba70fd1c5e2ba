"""The laboratory's commands can be imported by their tests."""

import pathlib
import sys

LAB = pathlib.Path(__file__).parents[1]
sys.path[:0] = [str(pathlib.Path(__file__).parent), str(LAB / "fits"), str(LAB / "models")]
