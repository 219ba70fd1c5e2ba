"""The folder of rendered stacks, laid out as on a host."""

import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import stacks


@pytest.fixture(params=stacks.NAMES)
def stack(request):
    return request.param


@pytest.fixture
def host(stack, tmp_path):
    """A folder that looks like the host's root."""
    for file in stacks.rendered(stack):
        place = tmp_path / file.path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(file.text)
        place.chmod(int(file.mode, 8))
    return tmp_path
