"""Vectors for sentences: two encoders that train here in seconds, and public ones if wanted.

- `train_ppmi`: from plain text, without labels; the stand-in for BERT;
- `train_contrastive`: from pairs that belong together; the stand-in for SimBERT;
- `pretrained_vectors`: a public BERT through ``transformers``, which need not be installed.

The first two give a `WordVectors`, whose ``encode(sentences)`` returns shape (n, d). torch is
imported only when something that needs it is.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lib.embeddings.contrastive import info_nce, train_contrastive
    from lib.embeddings.ppmi import PPMIVectors, train_ppmi
    from lib.embeddings.pretrained import pretrained_vectors
    from lib.embeddings.words import WordVectors

__all__ = [
    "PPMIVectors",
    "WordVectors",
    "info_nce",
    "pretrained_vectors",
    "train_contrastive",
    "train_ppmi",
]

_HOME = {
    "PPMIVectors": "ppmi",
    "WordVectors": "words",
    "info_nce": "contrastive",
    "pretrained_vectors": "pretrained",
    "train_contrastive": "contrastive",
    "train_ppmi": "ppmi",
}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"lib.embeddings.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
