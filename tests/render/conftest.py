"""The folder of rendered stacks, laid out as on a host."""

import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import combinations

import stacks


@pytest.fixture(params=stacks.NAMES)
def stack(request):
    return request.param


@pytest.fixture(params=[*stacks.NAMES, *combinations.COMBINATIONS])
def name(request):
    """A stack, or a named combination."""
    return request.param


@pytest.fixture
def planned(name):
    return stacks.planned(name) if name in stacks.NAMES else combinations.planned(name)


@pytest.fixture
def files(name):
    return stacks.rendered(name) if name in stacks.NAMES else combinations.rendered(name)


@pytest.fixture
def host(files, tmp_path):
    """A folder that looks like the host's root."""
    return stacks.laid_out(files, tmp_path)
