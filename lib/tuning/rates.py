"""Learning rates of all methods, from one search: ``python -m lib.tuning.rates``.

What is trained has two rates, that of the head, which is always new, and that of the body: trained
parameters of the trunk, parts put into it, or a network beside it. `search` tries all pairs of one
grid, the same for all methods, and `best` takes the pair with the most right answers. The command
does so for every method on each task of `lib.tuning.tasks` and prints the best pairs.

Nothing that the chapter judges by is looked at. Of every file that tasks are trained on, the first
half is trained on and the second one scored, and the seeds are others. Steps, windows and ladders
are those of the chapter; both forms of the ladder have one pair, the best for the two together.

Source: the search is ours; kexue.fm/archives/9138 does not say how it chose its rates.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lib import _checks as check
from lib.data.stdlib_text import CorpusError
from lib.tuning.corpus import Corpus, Source, read_corpus
from lib.tuning.methods import METHODS
from lib.tuning.tasks import TASKS, make_task
from lib.tuning.training import REUSING, Rates, Task, fine_tune, trunk_features
from lib.tuning.trunk import Trunk, load_trunk, stored_words

__all__ = ["BODY", "HEAD", "best", "held_out", "search"]

Found = dict[Rates, NDArray[np.float64]]

HEAD = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1)
BODY = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)

# The chapter's, but for the seeds, which start from 0 there.
STEPS, BATCH, LENGTH = 32, 8, 24
SEEDS = (10, 11, 12)
TEST = 300
_RUNGS = {"rungs": (1, 3, 5)}
_VARIANTS: dict[str, tuple[dict[str, Any], ...]] = {
    "ladder": (_RUNGS, {**_RUNGS, "form": "additive"}),
    "no_rungs": (_RUNGS,),
}


def held_out(corpus: Corpus) -> Corpus:
    """The same corpus without its test part: second halves of the training files stand in for it.

    Parameters
    ----------
    corpus : Corpus

    Returns
    -------
    Corpus
        Whole files cannot be dealt: one package has nearly all its training tokens in one of them.
    """
    first = (Source(name, tokens[: len(tokens) // 2]) for name, tokens in corpus.training)
    second = (Source(name, tokens[len(tokens) // 2 :]) for name, tokens in corpus.training)
    return replace(corpus, training=tuple(first), test=tuple(second))


def search(
    method: str,
    trunk: Trunk,
    task: Task,
    *,
    head: Sequence[float] = HEAD,
    body: Sequence[float] = BODY,
    seeds: Sequence[int] = SEEDS,
    steps: int = STEPS,
    batch: int = BATCH,
    **options: Any,
) -> Found:
    """Right answers at every pair of rates.

    Parameters
    ----------
    method : str
        One of `lib.tuning.METHODS`.
    trunk : Trunk
    task : Task
        Its test half must not be what the method is judged by later.
    head, body : sequence of float
        Rates to try. A probe has no body to train: for it only the first of `body` is used.
    seeds, steps, batch, **options
        As in :func:`lib.tuning.fine_tune`. A seed draws as many examples as the steps take, or all.

    Returns
    -------
    dict of Rates to ndarray, shape (seeds,)
        Share of right answers; NaN at rates at which a loss was not finite.

    Raises
    ------
    ValueError, TypeError
        For rates that are not positive, and as :func:`lib.tuning.fine_tune`.
    """
    check.choice(method, "method", METHODS)
    for name, rates in (("head", head), ("body", body)):
        if not rates:
            raise ValueError(f"`{name}` must hold at least one learning rate, got none")
        for rate in rates:
            check.positive(rate, name)
    features = trunk_features(trunk, task) if method in REUSING else None
    examples = min(steps * batch, len(task.train.targets))
    found = {}
    for pair in itertools.product(head, body[:1] if method == "probe" else body):
        try:
            right = fine_tune(
                method,
                trunk,
                task,
                seeds,
                steps=steps,
                batch=batch,
                examples=examples,
                learning_rate=Rates(*pair),
                features=features,
                **options,
            ).accuracy
        except FloatingPointError:
            right = np.full(len(seeds), np.nan)
        found[Rates(*pair)] = right
    return found


def best(found: Mapping[Rates, NDArray[np.float64]]) -> Rates:
    """The pair with the most right answers on average over the seeds.

    Parameters
    ----------
    found : mapping of Rates to ndarray
        Of :func:`search`.

    Returns
    -------
    Rates
        Of equally good pairs the first; never one at which a loss was not finite.

    Raises
    ------
    ValueError
        If there is no pair at which every loss was finite.
    """
    means = {rates: right.mean() for rates, right in found.items() if np.isfinite(right).all()}
    if not means:
        raise ValueError("`found` must hold a pair of rates at which every loss was finite")
    return max(means, key=means.__getitem__)


# --- the command ----------------------------------------------------------------------------------


def _searched(method: str, name: str) -> Found:
    """The search for one method on one task, over its variants."""
    torch.set_num_threads(1)
    corpus = held_out(read_corpus(stored_words()))
    task = make_task(name, train=STEPS * BATCH, test=TEST, length=LENGTH, corpus=corpus)
    runs = [search(method, load_trunk(), task, **more) for more in _VARIANTS.get(method, ({},))]
    return {rates: np.concatenate([run[rates] for run in runs]) for rates in runs[0]}


def main(arguments: Sequence[str] | None = None) -> int:
    """Search, and print the best pairs and how many answers were right; the exit status."""
    parser = argparse.ArgumentParser("rates", description="Search for learning rates.")
    parser.add_argument("methods", nargs="*", default=METHODS, help="default: all")
    parser.add_argument("--jobs", type=int, default=2, help="searches at a time, default 2")
    options = parser.parse_args(arguments)
    unknown = [method for method in options.methods if method not in METHODS]
    if unknown or options.jobs < 1:
        parser.error(f"no method {unknown[0]}" if unknown else "--jobs must be at least 1")
    pairs = list(itertools.product(options.methods, TASKS))
    try:
        with ProcessPoolExecutor(options.jobs) as pool:
            for (method, name), found in zip(
                pairs, pool.map(_searched, *zip(*pairs, strict=True)), strict=True
            ):
                rates = best(found)
                head = TASKS[name].head
                print(f'"{method}", "{head}": {rates}  # {found[rates].mean():.1%}', flush=True)
    except (CorpusError, FileNotFoundError) as error:
        print(f"rates: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
