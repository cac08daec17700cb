"""The package's front door: its names, and what importing it costs."""

import subprocess
import sys

import pytest

import lib.embeddings as embeddings


def test_every_promised_name_is_there():
    assert len(set(embeddings.__all__)) == len(embeddings.__all__)
    for name in embeddings.__all__:
        assert callable(getattr(embeddings, name))
        assert name in dir(embeddings)
    with pytest.raises(AttributeError, match="no attribute 'bert'"):
        embeddings.bert  # noqa: B018


def test_importing_needs_no_torch_and_using_it_no_transformers():
    code = (
        "import sys, lib.embeddings\n"
        "lib.embeddings.train_ppmi\n"
        "assert 'torch' not in sys.modules\n"
        "lib.embeddings.train_contrastive, lib.embeddings.pretrained_vectors\n"
        "loaded = {'transformers', 'matplotlib', 'IPython', 'lib.whitening'} & set(sys.modules)\n"
        "assert not loaded, loaded"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
