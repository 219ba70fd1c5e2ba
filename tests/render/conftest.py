"""Fixtures of the rendered stacks and combinations."""

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
    """Name of a stack or of a combination."""
    return request.param


@pytest.fixture
def planned(name):
    return stacks.planned(name) if name in stacks.NAMES else combinations.planned(name)


@pytest.fixture
def files(name):
    return stacks.rendered(name) if name in stacks.NAMES else combinations.rendered(name)


@pytest.fixture
def host(files, tmp_path):
    """Directory with the rendered files, as they are below the host's root."""
    return stacks.laid_out(files, tmp_path)
