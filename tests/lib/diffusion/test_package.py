"""The package's front door: its names, and what importing it costs."""

import doctest
import importlib
import subprocess
import sys

import pytest

import lib.diffusion as diffusion

MODULES = ("schedule", "sampling", "solvers", "mixture", "networks", "training", "metrics")


def test_every_promised_name_is_there():
    assert sorted(diffusion.__all__) == list(diffusion.__all__)
    for name in diffusion.__all__:
        assert callable(getattr(diffusion, name))
        assert name in dir(diffusion)
    with pytest.raises(AttributeError, match="no attribute 'denoise'"):
        diffusion.denoise  # noqa: B018


def test_schedules_need_no_torch_and_samplers_no_jupyter():
    code = (
        "import sys, lib.diffusion\n"
        "lib.diffusion.Schedule.article(10).subsequence([5, 10])\n"
        "loaded = {'torch', 'matplotlib', 'ipywidgets', 'IPython'} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
        "lib.diffusion.sample_ddpm, lib.diffusion.sample_ode, lib.diffusion.GaussianMixture\n"
        "loaded = {'matplotlib', 'ipywidgets', 'IPython', 'diffusers'} & set(sys.modules)\n"
        "assert not loaded, loaded"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("module", MODULES)
def test_examples_in_docstrings_run(module):
    result = doctest.testmod(importlib.import_module(f"lib.diffusion.{module}"))
    assert result.failed == 0
