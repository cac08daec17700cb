"""The package's front door: its names, and what importing it costs."""

import doctest
import importlib
import subprocess
import sys

import pytest

import lib.attention as attention

MODULES = ("distribution", "scaling", "families", "sphere", "quenched", "dot_product")


def test_every_promised_name_is_there():
    assert sorted(attention.__all__) == list(attention.__all__)
    for name in attention.__all__:
        assert callable(getattr(attention, name))
        assert name in dir(attention)
    with pytest.raises(AttributeError, match="no attribute 'attend'"):
        attention.attend  # noqa: B018


def test_torch_and_plotting_are_not_imported_with_the_package():
    code = (
        "import sys, lib.attention, lib.attention.families\n"
        "loaded = {'torch', 'matplotlib', 'ipywidgets', 'IPython'} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
        "lib.attention.scaled_dot_product_attention\n"
        "assert 'torch' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("module", MODULES)
def test_examples_in_docstrings_run(module):
    result = doctest.testmod(importlib.import_module(f"lib.attention.{module}"))
    assert result.failed == 0


def test_some_docstrings_have_examples():
    found = doctest.DocTestFinder().find(importlib.import_module("lib.attention.distribution"))
    assert sum(len(test.examples) for test in found) >= 2
