"""Whitening of vectors with two knobs, and the search for their values.

``x~ = (x - beta mu) U Lambda^(-gamma/2)``: `Whitening` fits and applies it as a scikit-learn
transformer, `whitening_sweep` scores a grid of settings on pairs with gold scores, and
`cosine_pairs` is the similarity that it ranks by. ``python -m lib.whitening sweep vectors.npy
pairs.csv`` does the same for files.

Source: Jianlin Su, kexue.fm/archives/9079 (2022).
"""

from lib.whitening.sweep import Setting, Sweep, cosine_pairs, whitening_sweep
from lib.whitening.transformer import Whitening

__all__ = ["Setting", "Sweep", "Whitening", "cosine_pairs", "whitening_sweep"]
