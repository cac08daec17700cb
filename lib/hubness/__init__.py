"""Hubness: a few points are among the nearest neighbours of very many others, most of almost none.

For the article https://kexue.fm/archives/9147; the phenomenon and its measure: Radovanović,
Nanopoulos and Ivanović, Hubs in space, JMLR 2010.

- `neighbours`, `k_occurrence`: exact lists of nearest neighbours, and how often each point is in
  them, without a matrix of all pairs in memory;
- `skewness`, `hub_score`, `antihub_rate`, `robin_hood`: how uneven these counts are;
- `Centring`, `Normalise`, `local_scaling`, `mutual_proximity`, `csls`: repairs;
- `theory`: ball and cube, angles, and the counts that a Gaussian cloud must show.

``python -m lib.hubness report vectors.npy`` measures a file.

Notation: n points in dimension d, N_k(x) the number of lists of k neighbours that hold x. scikit-
learn is imported only when a transformer is asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from lib.hubness.measures import antihub_rate, hub_score, robin_hood, skewness
from lib.hubness.repairs import Rescaled, csls, local_scaling, mutual_proximity
from lib.hubness.search import Neighbours, k_occurrence, neighbours
from lib.hubness.theory import (
    angle_density,
    angle_variance,
    ball_cube_ratio,
    log_ball_cube_ratio,
    predicted_occurrence,
    squared_distance_moments,
)

if TYPE_CHECKING:
    from lib.hubness.transforms import Centring, Normalise

__all__ = [
    "Centring",
    "Neighbours",
    "Normalise",
    "Rescaled",
    "angle_density",
    "angle_variance",
    "antihub_rate",
    "ball_cube_ratio",
    "csls",
    "hub_score",
    "k_occurrence",
    "local_scaling",
    "log_ball_cube_ratio",
    "mutual_proximity",
    "neighbours",
    "predicted_occurrence",
    "robin_hood",
    "skewness",
    "squared_distance_moments",
]


def __getattr__(name: str) -> Any:
    if name in ("Centring", "Normalise"):
        return getattr(importlib.import_module("lib.hubness.transforms"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
