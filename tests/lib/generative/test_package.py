"""The package's front door: its names, and what importing it costs."""

import doctest
import importlib
import subprocess
import sys

import pytest

import lib.generative as generative

MODULES = ("vae", "gan", "flow", "vqvae", "pixels", "autoregressive", "walk")


def test_every_promised_name_is_there():
    assert len(set(generative.__all__)) == len(generative.__all__)
    for name in generative.__all__:
        assert callable(getattr(generative, name))
        assert name in dir(generative)
    with pytest.raises(AttributeError, match="no attribute 'denoise'"):
        generative.denoise  # noqa: B018


def test_importing_needs_no_torch_and_training_no_jupyter_and_no_other_subject():
    code = (
        "import sys, lib.generative\n"
        "assert 'torch' not in sys.modules\n"
        "lib.generative.train_vae, lib.generative.train_gan, lib.generative.train_flow\n"
        "lib.generative.train_vqvae, lib.generative.train_pixels, lib.generative.langevin\n"
        "loaded = {'matplotlib', 'ipywidgets', 'IPython', 'lib.diffusion'} & set(sys.modules)\n"
        "assert not loaded, loaded"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_no_submodule_hides_a_name():
    for module in MODULES:
        importlib.import_module(f"lib.generative.{module}")
    assert callable(generative.langevin)
    assert not set(MODULES) & set(generative.__all__)


@pytest.mark.parametrize("module", MODULES)
def test_examples_in_docstrings_run(module):
    found = importlib.import_module(f"lib.generative.{module}")
    assert doctest.testmod(found).failed == 0
    assert set(found.__all__) <= set(dir(found))
