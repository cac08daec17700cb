"""Fine-tuning on a task by any method, several seeds, with the trunk's states computed once.

Where the trunk is frozen and nothing is put into it (a probe, a ladder, the control without rungs),
its states on the examples are the same at every step, in every epoch and for every seed:
`trunk_features` computes them once, and training never runs the trunk again. Methods that change
what happens inside the trunk cannot do so.

Source: kexue.fm/archives/9138 for the question; the reuse is ours. Notation: N examples of n
tokens, width D, L blocks, S seeds. Left out: early stopping. `lib.tuning.rates` searches for
learning rates.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from lib import _checks as check
from lib.attention.encoder import check_tokens
from lib.attention.side_by_side import one_cycle
from lib.neural import linear
from lib.tuning.ladder import LadderSideNetwork, NoRungs
from lib.tuning.methods import (
    METHODS,
    PointHead,
    PooledHead,
    PositionHead,
    Tunable,
    body_width,
    make_body,
    trainable,
    trainable_count,
)
from lib.tuning.trunk import Trunk

__all__ = [
    "HEADS",
    "LEARNING_RATES",
    "REUSING",
    "Features",
    "FineTuned",
    "Rates",
    "Task",
    "Together",
    "batches",
    "descend",
    "fine_tune",
    "pretrain_together",
    "trunk_features",
]

Floats = NDArray[np.float64]

HEADS = ("pooled", "position", "point")
REUSING = ("ladder", "no_rungs", "probe")  # whose trunk always gives the same states


class Rates(NamedTuple):
    """Learning rates at the peak."""

    head: float
    body: float  # of what is trained of the trunk, in it or beside it


# Found by `python -m lib.tuning.rates`, whose docstring says how.
LEARNING_RATES: dict[str, dict[str, Rates]] = {  # by method and kind of head
    "full": {
        "position": Rates(1e-1, 3e-4),
        "point": Rates(3e-3, 3e-4),
        "pooled": Rates(1e-3, 3e-3),
    },
    "adapter": {
        "position": Rates(3e-2, 1e-3),
        "point": Rates(1e-3, 3e-3),
        "pooled": Rates(1e-2, 3e-3),
    },
    "lora": {
        "position": Rates(3e-2, 3e-3),
        "point": Rates(1e-3, 3e-3),
        "pooled": Rates(3e-3, 3e-2),
    },
    "bitfit": {
        "position": Rates(1e-1, 3e-3),
        "point": Rates(3e-3, 1e-3),
        "pooled": Rates(3e-2, 1e-2),
    },
    "prompt": {
        "position": Rates(3e-2, 1e-2),
        "point": Rates(1e-3, 1e-1),
        "pooled": Rates(1e-2, 1e-2),
    },
    "ladder": {
        "position": Rates(3e-2, 3e-2),
        "point": Rates(1e-3, 1e-2),
        "pooled": Rates(1e-2, 3e-3),
    },
    "no_rungs": {
        "position": Rates(3e-1, 1e-4),
        "point": Rates(1e-1, 1e-2),
        "pooled": Rates(3e-1, 3e-3),
    },
    "probe": {
        "position": Rates(1e-1, 1e-4),
        "point": Rates(3e-3, 1e-4),
        "pooled": Rates(1e-1, 1e-4),
    },
}

CLIP = 1.0  # greatest norm of a gradient
CHUNK = 128  # windows at a time when nothing is learned
SAMPLE, ORDER, HIDING = 21, 22, 23  # purposes of generators


class Examples(Protocol):
    """What is read of one half of a task."""

    tokens: Tensor  # int64 (N, n)
    places: Tensor  # int64 (N,), the place that a head looks at
    targets: Tensor  # int64 (N,)


class Task(Protocol):
    """What is read of a task of `lib.tuning.tasks`."""

    head: str  # one of HEADS
    classes: int
    train: Examples
    test: Examples


class Features(NamedTuple):
    """States of a frozen trunk on a task: h_0, …, h_L, each of shape (N, n, D)."""

    train: tuple[Tensor, ...]
    test: tuple[Tensor, ...]


@dataclass(frozen=True)
class FineTuned:
    """What came of a method on a task.

    Attributes
    ----------
    method : str
    accuracy : ndarray, shape (S,)
        Share of right answers on the test examples, for each seed.
    losses : ndarray, shape (S, steps)
        Mean cross-entropy of the batch before each step.
    trained : int
        Trained numbers, the head's included.
    models : tuple of S Tunable
    """

    method: str
    accuracy: Floats
    losses: Floats
    trained: int
    models: tuple[Tunable, ...]


# --- the trunk's states, once ---------------------------------------------------------------------


def trunk_features(trunk: Trunk, task: Task) -> Features:
    """One forward pass of the trunk over all examples, training and test.

    Parameters
    ----------
    trunk : Trunk
    task : Task

    Returns
    -------
    Features
        For :func:`fine_tune`; L + 1 numbers in float32 for every coordinate of every token.
    """
    _check_trunk(trunk)
    _check_task(task)
    return Features(*(_states(trunk, half.tokens) for half in (task.train, task.test)))


@torch.no_grad()
def _states(trunk: Trunk, tokens: Tensor) -> tuple[Tensor, ...]:
    """h_0, …, h_L of all windows, a few windows at a time."""
    parts = [_levels(trunk, some.to(_device(trunk))) for some in tokens.split(CHUNK)]
    return tuple(torch.cat(level) for level in zip(*parts, strict=True))


def _levels(trunk: Trunk, tokens: Tensor) -> tuple[Tensor, ...]:
    """h_0, …, h_L, (B, n, D) each."""
    levels = [trunk.embed(tokens)]
    for block in trunk.blocks:
        levels.append(block(levels[-1]))
    return tuple(levels)


def _reads(body: nn.Module, trunk: Trunk) -> tuple[int, ...]:
    """Which of h_0, …, h_L a body starts from."""
    if isinstance(body, NoRungs):
        return (0,)
    if isinstance(body, LadderSideNetwork):
        return (0, *(k + 1 for k in body.rungs))
    return (len(trunk.blocks),)  # the probe: the last one


def _from_states(body: nn.Module, states: Sequence[Tensor]) -> Tensor:
    """What the body makes of stored states, (B, n, width)."""
    if isinstance(body, LadderSideNetwork):
        return body.from_states(states)
    return body.norm(states[0])  # the probe's frozen copy of the trunk


# --- fine-tuning ----------------------------------------------------------------------------------


def fine_tune(
    method: str,
    trunk: Trunk,
    task: Task,
    seeds: Sequence[int],
    *,
    steps: int,
    batch: int = 16,
    examples: int | None = None,
    learning_rate: float | Rates | None = None,
    features: Features | None = None,
    start: Mapping[str, Tensor] | None = None,
    **options: Any,
) -> FineTuned:
    """Train a method on a task and score it, once for each seed.

    A seed draws the training examples, their order and all initial parameters. Examples and order
    depend on the seed alone, so two methods are paired seed by seed.

    Parameters
    ----------
    method : str
        One of `lib.tuning.METHODS`.
    trunk : Trunk
        Pretrained; left as it is.
    task : Task
        Of `lib.tuning.tasks`.
    seeds : sequence of int
    steps : int
        Of AdamW, under a learning rate that rises and falls once.
    batch : int
    examples : int, optional
        How many training examples a seed draws, all unless given.
    learning_rate : Rates or float, optional
        At the peak, of head and body, or one for both. Unless given, those of `LEARNING_RATES` for
        the method and the kind of head.
    features : Features, optional
        From :func:`trunk_features` of the same trunk and task, for the methods in `REUSING`: the
        trunk isn't run any more. The result is the same up to rounding.
    start : mapping of str to Tensor, optional
        State of the body to start from, as `state_dict` gives it, in place of a random one. That
        of a probe is a trunk, so it cannot go with `features` of another one.
    **options
        Of the method, as in :func:`lib.tuning.make_body`.

    Returns
    -------
    FineTuned

    Raises
    ------
    ValueError, TypeError
        For unknown methods or heads, features of another method, trunk or task, no seeds, more
        examples than there are, a start that does not fit.
    FloatingPointError
        If a loss is not finite.
    """
    check.choice(method, "method", METHODS)
    _check_trunk(trunk)
    _check_task(task)
    check.whole(steps, "steps", 1)
    check.whole(batch, "batch", 1)
    rates = _check_rates(
        LEARNING_RATES[method][task.head] if learning_rate is None else learning_rate
    )
    count = len(task.train.targets)
    drawn = count if examples is None else check.whole(examples, "examples", 1, count)
    if features is not None:
        _check_features(features, method, trunk, task)
        if start is not None and method == "probe":
            raise ValueError(
                "`features` must not be given with `start` for a probe: they are another trunk's"
            )
    models, losses, right = [], [], []
    for seed in _check_seeds(seeds):
        model = _model(method, trunk, task, torch.Generator().manual_seed(seed), options)
        if start is not None:
            _load(model.body, start)
        mine = np.random.default_rng([SAMPLE, seed]).permutation(count)[:drawn]
        run = _Run(model, trunk, task, features)
        order = batches(mine, batch, np.random.default_rng([ORDER, seed]))
        groups = [(trainable(model.head), rates.head), (trainable(model.body), rates.body)]
        losses.append(descend(groups, run.loss, order, steps=steps))
        models.append(model.eval())
        right.append(run.accuracy())
    trained = trainable_count(models[0])
    return FineTuned(method, np.array(right), np.stack(losses), trained, tuple(models))


class _Run(NamedTuple):
    """A model on a task, on the trunk's stored states if there are any."""

    model: Tunable
    trunk: Trunk
    task: Task
    features: Features | None

    def scores(self, half: str, rows: Tensor) -> Tensor:
        """Of the examples in these rows: (B, classes), or (B, n) for a head that points."""
        data: Examples = getattr(self.task, half)
        device = _device(self.trunk)
        places = data.places[rows].to(device)
        if self.features is None:
            return self.model(data.tokens[rows].to(device), places)
        levels = getattr(self.features, half)
        body = self.model.body
        states = tuple(levels[k][rows] for k in _reads(body, self.trunk))
        return self.model.head(_from_states(body, states), places)

    def loss(self, rows: Tensor) -> Tensor:
        scores = self.scores("train", rows)
        return F.cross_entropy(scores, self.task.train.targets[rows].to(scores.device))

    @torch.no_grad()
    def accuracy(self) -> float:
        targets = self.task.test.targets
        guesses = [
            self.scores("test", rows).argmax(-1) for rows in torch.arange(len(targets)).split(CHUNK)
        ]
        return (torch.cat(guesses) == targets.to(guesses[0].device)).double().mean().item()


def _model(
    method: str, trunk: Trunk, task: Task, generator: torch.Generator, options: Mapping[str, Any]
) -> Tunable:
    body = make_body(method, trunk, generator, **options)
    width = body_width(body, trunk)
    if task.head == "point":
        head: nn.Module = PointHead(width, generator)
    else:
        kind = {"pooled": PooledHead, "position": PositionHead}[task.head]
        head = kind(width, task.classes, generator)
    return Tunable(body, head.to(_device(trunk)))


def _device(trunk: Trunk) -> torch.device:
    return trunk.embedding.weight.device


def _load(body: nn.Module, start: Mapping[str, Tensor]) -> None:
    try:
        body.load_state_dict(start)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise ValueError(f"`start` must be a state of the method's body: {error}") from error


def batches(rows: NDArray[np.int64], size: int, rng: np.random.Generator) -> Iterator[Tensor]:
    """Rows without end: every epoch in a new order, batches running on into the next epoch.

    Parameters
    ----------
    rows : ndarray of int64, shape (N,)
    size : int
    rng : numpy.random.Generator

    Returns
    -------
    iterator of Tensor of int64, shape (size,)
    """
    if len(rows) == 0:
        raise ValueError("`rows` must hold at least one row, got none")
    return _endless(rows, check.whole(size, "size", 1), check.rng(rng))


def _endless(rows: NDArray[np.int64], size: int, rng: np.random.Generator) -> Iterator[Tensor]:
    ahead = np.empty(0, dtype=np.int64)
    while True:
        while len(ahead) < size:
            ahead = np.concatenate([ahead, rng.permutation(rows)])
        yield torch.from_numpy(ahead[:size].copy())
        ahead = ahead[size:]


def descend(
    groups: Sequence[tuple[Iterable[nn.Parameter], float]],
    loss: Callable[[Any], Tensor],
    order: Iterator[Any],
    *,
    steps: int,
) -> Floats:
    """AdamW without weight decay on a stream of batches, in place.

    The gradient of each group is cut to a norm of 1 by itself, so that one group's steps do not
    depend on another's.

    Parameters
    ----------
    groups : sequence of (parameters, float)
        What is trained, and the learning rate at the peak of one rise and fall.
    loss : callable
        Takes what `order` yields and returns one number.
    order : iterator
        At least `steps` batches, say rows of a data set, see :func:`batches`.
    steps : int

    Returns
    -------
    ndarray, shape (steps,)
        Loss before each step.

    Raises
    ------
    ValueError
        If there is nothing to train, a rate is not positive, or the batches run out.
    FloatingPointError
        If a loss is not finite.
    """
    check.whole(steps, "steps", 1)
    peaks = [
        {"params": list(weights), "peak": check.positive(rate, "learning_rate")}
        for weights, rate in groups
    ]
    if not any(group["params"] for group in peaks):
        raise ValueError("`groups` must hold parameters, there is nothing to train")
    adam = torch.optim.AdamW(peaks, betas=(0.9, 0.99), weight_decay=0.0, fused=True)
    history = np.empty(steps)
    for step in range(steps):
        for group in adam.param_groups:
            group["lr"] = group["peak"] * one_cycle(step, steps)
        try:
            value = loss(next(order))
        except StopIteration:
            raise ValueError(f"`order` must hold {steps} batches, got {step}") from None
        history[step] = value.item()
        if not np.isfinite(history[step]):
            raise FloatingPointError(
                f"the loss is not finite at step {step}: {history[step]}; "
                "a learning rate may be too large"
            )
        adam.zero_grad()
        value.backward()
        for group in adam.param_groups:
            nn.utils.clip_grad_norm_(group["params"], CLIP)
        adam.step()
    return history


# --- trunk and ladder, pretrained together --------------------------------------------------------


class Together(NamedTuple):
    """A trunk and a ladder that were pretrained side by side.

    Attributes
    ----------
    trunk : Trunk
    ladder : LadderSideNetwork
        Beside that trunk.
    losses : ndarray, shape (steps,)
        Sum of both cross-entropies before each step, in nats.
    """

    trunk: Trunk
    ladder: LadderSideNetwork
    losses: Floats


def pretrain_together(
    trunk: Trunk,
    tokens: Tensor,
    mask: int,
    *,
    steps: int,
    seed: int,
    batch: int = 16,
    hidden: float = 0.2,
    trunk_rate: float = 3e-4,
    ladder_rate: float = 1e-2,
    through: bool = True,
    **options: Any,
) -> Together:
    """Go on pretraining a trunk while a new ladder beside it guesses the same hidden tokens.

    The ladder's states are brought to the trunk's width by a linear layer, which is dropped
    afterwards, and scored by the trunk's embedding. Here, and only here, the gradient of the
    ladder's loss passes into the trunk, so that the trunk learns to serve the ladder too.

    Without it (`through=False`) comes the control: the trunk goes on exactly as it would alone, on
    the same windows with the same tokens hidden, and the ladder learns beside it.

    Parameters
    ----------
    trunk : Trunk
        Left as it is: a copy goes on.
    tokens : Tensor of int64, shape (N, n)
        Windows, such as those that the trunk was pretrained on.
    mask : int
        The token that hides.
    steps, batch : int
    seed : int
        Of everything that is drawn.
    hidden : float
        Share of the tokens that are hidden, strictly between 0 and 1.
    trunk_rate, ladder_rate : float
        Learning rates at their peak.
    through : bool
        Whether the ladder's loss changes the trunk.
    **options
        Of :class:`lib.tuning.LadderSideNetwork`, but the width.

    Returns
    -------
    Together
    """
    _check_trunk(trunk)
    check_tokens(tokens, trunk.config.vocabulary)
    check.whole(mask, "mask", 0, trunk.config.vocabulary - 1)
    check.whole(batch, "batch", 1)
    check.whole(seed, "seed", 0)
    check.open_unit(hidden, "hidden")
    draw = torch.Generator().manual_seed(seed)
    trunk = copy.deepcopy(trunk).requires_grad_(True)
    ladder = make_body("ladder", trunk, draw, **options)
    device = _device(trunk)
    up = linear(ladder.width, trunk.config.width, draw).to(device)

    def loss(rows: Tensor) -> Tensor:
        words = tokens[rows].to(device)
        where = torch.rand(words.shape, generator=draw).to(device) < hidden
        where[:, 0] |= ~where.any(1)  # at least one in every window
        levels = _levels(trunk, words.masked_fill(where, mask))
        read = [levels[k] for k in _reads(ladder, trunk)]
        beside = ladder.from_states(read if through else [h.detach() for h in read])[where]
        table = trunk.embedding.weight if through else trunk.embedding.weight.detach()
        own = trunk.logits(trunk.norm(levels[-1])[where])
        ladders = F.linear(up(beside), table) / math.sqrt(trunk.config.width)
        return sum(F.cross_entropy(scores, words[where]) for scores in (own, ladders))

    order = batches(np.arange(len(tokens)), batch, np.random.default_rng([HIDING, seed]))
    groups = [
        (trunk.parameters(), trunk_rate),
        ([*trainable(ladder), *up.parameters()], ladder_rate),
    ]
    losses = descend(groups, loss, order, steps=steps)
    trunk.requires_grad_(False).eval()
    return Together(trunk, ladder, losses)


# --- what a caller hands in -----------------------------------------------------------------------


def _check_trunk(trunk: Trunk) -> None:
    if not isinstance(trunk, Trunk):
        raise TypeError(f"`trunk` must be a lib.tuning.Trunk, got {type(trunk).__name__}")


def _check_task(task: Task) -> None:
    check.choice(getattr(task, "head", None), "task.head", HEADS)
    for name in ("train", "test"):
        half = getattr(task, name)
        for part, axes in (("tokens", 2), ("places", 1), ("targets", 1)):
            x = getattr(half, part)
            if not isinstance(x, Tensor) or x.dtype != torch.int64:
                kind = x.dtype if isinstance(x, Tensor) else type(x).__name__
                raise TypeError(f"`task.{name}.{part}` must be a tensor of int64, got {kind}")
            if x.ndim != axes or len(x) != len(half.targets) or x.numel() == 0:
                raise ValueError(
                    f"`task.{name}.{part}` must have {axes} axes and a row for each of the "
                    f"{len(half.targets)} targets, got shape {tuple(x.shape)}"
                )
        most = half.tokens.shape[1] if task.head == "point" else task.classes
        bad = (half.targets < 0) | (half.targets >= most)
        if bad.any():
            raise ValueError(
                f"`task.{name}.targets` must lie in 0 … {most - 1}, "
                f"got {half.targets[bad][0].item()}"
            )


def _check_features(features: Features, method: str, trunk: Trunk, task: Task) -> None:
    if method not in REUSING:
        raise ValueError(
            f"`features` serve {', '.join(REUSING)}, whose trunk never changes, got {method!r}"
        )
    if not isinstance(features, Features):
        raise TypeError(f"`features` must be from trunk_features, got {type(features).__name__}")
    for name, levels in zip(("train", "test"), features, strict=True):
        wanted = (*getattr(task, name).tokens.shape, trunk.config.width)
        shapes = {tuple(h.shape) for h in levels}
        if len(levels) != len(trunk.blocks) + 1 or shapes != {wanted}:
            raise ValueError(
                f"`features.{name}` must be {len(trunk.blocks) + 1} states of shape {wanted}, "
                f"got {len(levels)} of {sorted(shapes)}"
            )
        again = _states(trunk, getattr(task, name).tokens[:1])
        if not all(torch.allclose(h[:1], a, atol=1e-4) for h, a in zip(levels, again, strict=True)):
            raise ValueError(f"`features.{name}` must be of `trunk` on `task`, they are not")


def _check_rates(rates: float | Rates) -> Rates:
    pair = rates if isinstance(rates, tuple) else (rates, rates)
    if len(pair) != 2:
        raise ValueError(f"`learning_rate` must be one number or two, head and body, got {rates!r}")
    return Rates(*(check.positive(rate, "learning_rate") for rate in pair))


def _check_seeds(seeds: Sequence[int]) -> list[int]:
    if isinstance(seeds, (str, int)) or not isinstance(seeds, Iterable):
        raise TypeError(f"`seeds` must be a sequence of whole numbers, got {seeds!r}")
    chosen = [check.whole(seed, "seeds", 0) for seed in seeds]
    if not chosen:
        raise ValueError("`seeds` must name at least one seed, got none")
    return chosen
