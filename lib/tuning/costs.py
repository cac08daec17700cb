"""What a training step costs: bytes kept for the backward pass, operations, trained numbers.

Measured, on any model:

- `saved_tensors`, `activation_memory`: what the forward pass keeps for the backward pass;
- `count_operations`: floating-point operations of both passes;
- `peak_memory`: what a fresh process needs beyond what it held before.

Predicted, for a `Trunk` and the methods of `lib.tuning`: `account` walks through the forward pass
and adds up by the rules of back-propagation, to the byte:

- a linear layer y = x Wᵀ + b keeps x if W is trained; if W is frozen it keeps nothing, and passes
  the gradient on by W itself;
- a LayerNorm keeps its input, a mean and a deviation per row, whenever a gradient passes;
- GELU keeps its input; attention keeps q, k, v, its output and a number per row and head;
- a sum keeps nothing.

Source: kexue.fm/archives/9138 for the argument; the accounts are ours. For single precision on a
CPU, attention by `F.scaled_dot_product_attention` without n × n matrices.
"""

from __future__ import annotations

import gc
import multiprocessing
import pickle
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from lib import _checks as check
from lib.tuning.ladder import (
    FORMS,
    INITIALS,
    check_copied,
    check_rungs,
    narrow_width,
    side_sizes,
)
from lib.tuning.methods import METHODS, PooledHead, Tunable, body_width, make_body
from lib.tuning.trunk import Trunk, TrunkConfig

__all__ = [
    "Account",
    "Operations",
    "SavedTensor",
    "TrainingStep",
    "account",
    "activation_bytes",
    "activation_memory",
    "count_operations",
    "ladder_floor",
    "operations",
    "peak_memory",
    "saved_tensors",
    "trainable_parameters",
    "training_step",
]


Shape = Sequence[int]
FLOAT, LONG = 4, 8  # bytes
# --- measured -------------------------------------------------------------------------------------


class SavedTensor(NamedTuple):
    """One storage that the forward pass keeps for the backward pass."""

    shape: tuple[int, ...]  # of the first tensor seen in it
    dtype: torch.dtype
    bytes: int  # of the whole storage


class Operations(NamedTuple):
    """Floating-point operations of matrix products and attention; a product and a sum are two."""

    forward: int
    backward: int

    @property
    def total(self) -> int:
        return self.forward + self.backward


def saved_tensors(
    step: Callable[[], Tensor], resident: nn.Module | Iterable[nn.Module | Tensor] = ()
) -> list[SavedTensor]:
    """Storages that a forward pass keeps for the backward pass, in the order of their first use.

    Parameters
    ----------
    step : callable without arguments
        Runs the forward pass and returns the loss; it may run the backward pass too.
    resident : nn.Module, or iterable of nn.Module and Tensor
        What is in memory anyway and is not counted: parameters and buffers of modules, tensors.

    Returns
    -------
    list of SavedTensor
        Views of one storage count once, as the whole storage.

    Notes
    -----
    A linear layer keeps its weight as a transposed view, so that parameters can only be told by
    where their storage lies. All that was kept is held until the count is done, since a freed place
    in memory could be given out again. So what a step frees before it returns is counted, too: the
    graph of an intermediate result that nothing refers to any more.
    """
    if not callable(step):
        raise TypeError(f"`step` must be callable without arguments, got {type(step).__name__}")
    known = {t.untyped_storage().data_ptr() for t in _tensors(resident)}
    held: list[Tensor] = []

    def pack(x: Tensor) -> Tensor:
        held.append(x)
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        loss = step()
    found: dict[int, SavedTensor] = {}
    for x in held:
        storage = x.untyped_storage()
        if storage.data_ptr() not in known and storage.nbytes():
            record = SavedTensor(tuple(x.shape), x.dtype, storage.nbytes())
            found.setdefault(storage.data_ptr(), record)
    del loss
    return list(found.values())


def activation_memory(
    step: Callable[[], Tensor], resident: nn.Module | Iterable[nn.Module | Tensor] = ()
) -> int:
    """Bytes that a forward pass keeps for the backward pass; see :func:`saved_tensors`.

    Examples
    --------
    >>> layer, x = nn.Linear(4, 8), torch.ones(2, 4)
    >>> activation_memory(lambda: layer(x).sum(), layer)  # x, for the gradient of the weight
    32
    >>> frozen = nn.Linear(4, 8).requires_grad_(False)
    >>> activation_memory(lambda: frozen(x.clone().requires_grad_()).sum(), frozen)
    0
    """
    return sum(saved.bytes for saved in saved_tensors(step, resident))


def count_operations(forward: Callable[[], Tensor]) -> Operations:
    """Operations of a forward pass and of the backward pass from what it returns.

    Parameters
    ----------
    forward : callable without arguments
        Returns a loss, one number. Gradients of the backward pass are added to `.grad` as always.

    Notes
    -----
    Counted by torch's `FlopCounterMode`, which knows matrix products, and attention on a GPU only;
    the same two formulas are given to it for the CPU's attention. Its backward pass has five
    products of the size of the forward pass's two: the scores are computed again.
    """
    if not callable(forward):
        raise TypeError(
            f"`forward` must be callable without arguments, got {type(forward).__name__}"
        )
    with FlopCounterMode(display=False, custom_mapping=_ATTENTION) as ahead:
        loss = forward()
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        raise ValueError("`forward` must return a tensor of one number, the loss")
    with FlopCounterMode(display=False, custom_mapping=_ATTENTION) as back:
        if loss.requires_grad:
            loss.backward()
    return Operations(ahead.get_total_flops(), back.get_total_flops())


def peak_memory(build: Callable[..., Callable[[], Any]], /, *args: Any, **kwargs: Any) -> int:
    """Bytes that a step adds to a fresh process: highest during the step, less what it held before.

    Parameters
    ----------
    build : callable
        Called in the new process with the other arguments; returns the step, a callable without
        arguments. It must be importable there: a function of a module, no lambda.
    *args, **kwargs
        Whatever can be pickled.

    Returns
    -------
    int
        Of the memory that the process really occupies (its resident set): temporaries, libraries'
        work space and what the allocator keeps are in it. Differs from run to run and between
        machines. Where the system cannot set its high-water mark back (other than Linux), the
        result is a lower bound.
    """
    if not callable(build):
        raise TypeError(f"`build` must be callable, got {type(build).__name__}")
    try:
        pickle.dumps((build, args, kwargs))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise TypeError(
            f"`build` and its arguments must be importable elsewhere: {error}"
        ) from error
    fresh = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=fresh) as pool:
        return pool.submit(_peak, build, args, kwargs, torch.get_num_threads()).result()


def _peak(
    build: Callable[..., Callable[[], Any]],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    threads: int,
) -> int:
    torch.set_num_threads(threads)
    step = build(*args, **kwargs)
    gc.collect()
    _reset_high_water()
    before = _high_water()
    step()
    return _high_water() - before


def _reset_high_water() -> None:
    """Set the process's peak back to what it occupies now, where the system can."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def _high_water() -> int:
    """Most bytes that this process has occupied."""
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = [x for x in status.read_text().splitlines() if x.startswith("VmHWM")]
        return 1024 * int(line.split()[1])
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _tensors(resident: nn.Module | Iterable[nn.Module | Tensor]) -> Iterable[Tensor]:
    """Parameters and buffers of modules, and tensors as they are."""
    parts = [resident] if isinstance(resident, (nn.Module, Tensor)) else list(resident)
    for part in parts:
        if isinstance(part, nn.Module):
            yield from part.parameters()
            yield from part.buffers()
        elif isinstance(part, Tensor):
            yield part
        else:
            raise TypeError(f"`resident` must hold modules and tensors, got {type(part).__name__}")


def _attention(q: Shape, k: Shape, v: Shape, *rest: Any, **named: Any) -> int:
    return sdpa_flop_count(q, k, v)


def _attention_backward(grad: Shape, q: Shape, k: Shape, v: Shape, *rest: Any, **named: Any) -> int:
    return sdpa_backward_flop_count(grad, q, k, v)


_ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}


class TrainingStep(NamedTuple):
    """A step on random tokens, without the optimiser. Calling it runs both passes.

    Attributes
    ----------
    model : Tunable
    loss : callable without arguments
        The forward pass.
    """

    model: Tunable
    loss: Callable[[], Tensor]

    def __call__(self) -> None:
        self.model.zero_grad(set_to_none=True)
        self.loss().backward()


def training_step(
    method: str,
    config: TrunkConfig,
    batch: int,
    length: int,
    *,
    classes: int = 4,
    seed: int = 0,
    **options: Any,
) -> TrainingStep:
    """A step to be measured: untrained trunk, random tokens, pooled head and cross-entropy.

    Parameters
    ----------
    method, config, batch, length, classes, **options
        As in :func:`account`.
    seed : int
        Of the generator that everything is drawn from; a number, so that :func:`peak_memory` can
        hand it to another process.

    Examples
    --------
    >>> config = TrunkConfig(vocabulary=50, width=32, heads=2, layers=2, feed_forward=64)
    >>> step = training_step("lora", config, batch=4, length=16)
    >>> activation_memory(step, step.model) == activation_bytes("lora", config, 4, 16, classes=4)
    True
    """
    check.choice(method, "method", METHODS)
    _check_sizes(config, batch, length)
    check.whole(classes, "classes", 2)
    draw = torch.Generator().manual_seed(check.whole(seed, "seed", 0))
    trunk = Trunk(config, draw)
    body = make_body(method, trunk, draw, **options)
    model = Tunable(body, PooledHead(body_width(body, trunk), classes, draw))
    tokens = torch.randint(config.vocabulary, (batch, length), generator=draw)
    targets = torch.randint(classes, (batch,), generator=draw)
    return TrainingStep(model, lambda: F.cross_entropy(model(tokens), targets))


# --- predicted ------------------------------------------------------------------------------------


@dataclass
class Account:
    """What one training step keeps and computes, and how much is trained.

    Attributes
    ----------
    kept : dict of str to int
        Bytes of every buffer that the forward pass keeps, by a name such as "3.query".
    forward, backward : int
        Operations.
    trained : int
        Trained numbers.
    """

    kept: dict[str, int] = field(default_factory=dict)
    forward: int = 0
    backward: int = 0
    trained: int = 0

    @property
    def bytes(self) -> int:
        return sum(self.kept.values())

    @property
    def operations(self) -> Operations:
        return Operations(self.forward, self.backward)

    def keep(self, name: str, numbers: int, size: int = FLOAT) -> None:
        """A buffer is kept; under one name it counts once."""
        self.kept[name] = numbers * size

    def product(self, rows: int, inputs: int, outputs: int, live: bool, trained: bool) -> None:
        """x Wᵀ: the same number of operations forward, for the gradient of W, and for that of x."""
        once = 2 * rows * inputs * outputs
        self.forward += once
        self.backward += once * (live + trained)
        self.trained += inputs * outputs * trained

    def norm(self, name: str, rows: int, width: int, live: bool, weight: bool, bias: bool) -> bool:
        """A LayerNorm of the buffer `name`; whether a gradient passes through what comes out."""
        self.trained += width * (weight + bias)
        if live or weight or bias:
            self.keep(name, rows * width)
            self.keep(f"{name} statistics", 2 * rows)
        return live or weight or bias


@dataclass(frozen=True)
class _Training:
    """What is trained inside a block."""

    weights: bool = False
    biases: bool = False
    rank: int = 0
    targets: tuple[str, ...] = ()  # that have a low-rank update
    bottleneck: int = 0
    after: tuple[str, ...] = ()  # that have an adapter behind them


@dataclass
class _Walk:
    """Through a stack of blocks, in the order of the forward pass."""

    account: Account
    batch: int
    length: int
    training: _Training

    @property
    def rows(self) -> int:
        return self.batch * self.length

    def block(self, k: str, width: int, heads: int, feed: int, live: bool, x: str) -> bool:
        """One pre-norm block on the buffer `x`; whether its output carries a gradient."""
        add, rows, t = self.account, self.rows, self.training
        normed = add.norm(x, rows, width, live, t.weights, t.biases)
        parts = ("query", "key", "value")
        through = [self.linear(k, p, f"{k}.normed", width, width, normed) for p in parts]
        attended = self.attention(k, width, heads, through)
        out = self.linear(k, "out", f"{k}.attended", width, width, attended)
        live = live or out
        normed = add.norm(f"{k}.middle", rows, width, live, t.weights, t.biases)
        up = self.linear(k, "up", f"{k}.normed again", width, feed, normed)
        if up:
            add.keep(f"{k}.up", rows * feed)  # the input of GELU
        down = self.linear(k, "down", f"{k}.gelu", feed, width, up)
        return live or down

    def linear(self, k: str, part: str, x: str, inputs: int, outputs: int, live: bool) -> bool:
        """x Wᵀ + b of the buffer `x`, perhaps with an update or an adapter."""
        add, rows, t = self.account, self.rows, self.training
        add.product(rows, inputs, outputs, live, t.weights)
        add.trained += outputs * t.biases
        if t.weights:
            add.keep(x, rows * inputs)
        through = live or t.weights or t.biases
        if part in t.targets:
            add.keep(x, rows * inputs)
            add.keep(f"{k}.{part} A", rows * t.rank)
            add.product(rows, inputs, t.rank, live, trained=True)
            add.product(rows, t.rank, outputs, live=True, trained=True)
            through = True
        if part in t.after:
            self.adapter(f"{k}.{part} adapter", outputs, through)
            through = True
        return through

    def adapter(self, name: str, width: int, live: bool) -> None:
        """x + U gelu(V x)."""
        add, rows, narrow = self.account, self.rows, self.training.bottleneck
        for buffer, numbers in (("x", width), ("down", narrow), ("gelu", narrow)):
            add.keep(f"{name} {buffer}", rows * numbers)
        add.product(rows, width, narrow, live, trained=True)
        add.product(rows, narrow, width, live=True, trained=True)
        add.trained += narrow + width  # the biases

    def attention(self, k: str, width: int, heads: int, through: list[bool]) -> bool:
        """Rotation, then softmax(q kᵀ) v: kept whole if any of the three carries a gradient."""
        add, rows = self.account, self.rows
        pairs = 2 * rows * self.length * width  # one product of n × n by the width, or into it
        add.forward += 2 * pairs
        for part, live in zip(("query", "key"), through, strict=False):
            if live:
                add.keep(f"{k}.{part} rotation", self.length * width // heads)  # complex, n × d / 2
        if any(through):
            for part in ("query", "key", "value", "attended"):
                add.keep(f"{k}.{part}", rows * width)
            add.keep(f"{k}.log-sum-exp", rows * heads)
            add.backward += 5 * pairs
        return any(through)


def account(
    method: str,
    config: TrunkConfig,
    batch: int,
    length: int,
    *,
    classes: int | None = None,
    **options: Any,
) -> Account:
    """What a training step of a method keeps and computes, without running it.

    Parameters
    ----------
    method : str
        One of `lib.tuning.METHODS`.
    config : TrunkConfig
    batch, length : int
        Windows, and tokens in each.
    classes : int, optional
        With a pooled head of so many classes and a cross-entropy; unless given, the states alone
        (and a loss that keeps nothing, such as their sum).
    **options
        Of the method, as in :func:`lib.tuning.make_body`; of the ladder all but `width` and
        `generator`.

    Returns
    -------
    Account
        Equal to what :func:`activation_memory`, :func:`count_operations` and
        :func:`lib.tuning.trainable_count` measure.
    """
    check.choice(method, "method", METHODS)
    _check_sizes(config, batch, length)
    add = Account()
    if method in ("ladder", "no_rungs"):
        width = _ladder(add, config, batch, length, method == "ladder", **options)
        live = True
    else:
        width = config.width
        live = _trunk(add, config, batch, length, method, **options)
    if classes is not None:
        _head(add, batch, width, check.whole(classes, "classes", 2), live)
    return add


def activation_bytes(
    method: str, config: TrunkConfig, batch: int, length: int, **options: Any
) -> int:
    """Bytes that the forward pass keeps for the backward pass; arguments of :func:`account`."""
    return account(method, config, batch, length, **options).bytes


def operations(
    method: str, config: TrunkConfig, batch: int, length: int, **options: Any
) -> Operations:
    """Operations forward and backward; arguments of :func:`account`."""
    return account(method, config, batch, length, **options).operations


def trainable_parameters(method: str, config: TrunkConfig, **options: Any) -> int:
    """Trained numbers; arguments of :func:`account` without `batch` and `length`."""
    return account(method, config, 1, 1, **options).trained


def ladder_floor(config: TrunkConfig, batch: int, length: int, rungs: int | None = None) -> int:
    """(N + 1) B n D · 4 bytes: the states of the trunk that N rungs read.

    They are kept for the gradients of the W_l, whatever the width of the ladder.

    Parameters
    ----------
    config : TrunkConfig
    batch, length : int
    rungs : int, optional
        N; all blocks unless given.
    """
    _check_sizes(config, batch, length)
    count = config.layers if rungs is None else check.whole(rungs, "rungs", 1, config.layers)
    return (count + 1) * batch * length * config.width * FLOAT


def _trunk(
    add: Account, config: TrunkConfig, batch: int, length: int, method: str, **options: Any
) -> bool:
    """A trunk with what the method trains in it; whether its states carry a gradient."""
    training, live, prompts = _training(method, **options)
    if method == "full":
        add.keep("tokens", batch * length, LONG)
        add.trained += config.vocabulary * config.width
    add.trained += prompts * config.width
    walk = _Walk(add, batch, prompts + length, training)
    for k in range(config.layers):
        live = walk.block(
            f"{k}", config.width, config.heads, config.feed_forward, live, f"{k}.states"
        )
    return add.norm("last.states", walk.rows, config.width, live, training.weights, training.biases)


def _training(method: str, **options: Any) -> tuple[_Training, bool, int]:
    """What is trained in a block; whether the first one's input is; how many prompts there are."""
    unknown = sorted(set(options) - set(_OPTIONS[method]))
    if unknown:
        raise TypeError(f'method "{method}" has no options {unknown}')
    chosen = {**_OPTIONS[method], **options}
    for name in {"rank", "bottleneck", "prompts"} & set(chosen):
        check.whole(chosen[name], name, 1)
    for name in {"targets", "after"} & set(chosen):
        chosen[name] = _parts(chosen[name], name)
    prompts = chosen.pop("prompts", 0)
    chosen.pop("alpha", None)  # a factor, which costs nothing
    everything = method == "full"
    training = _Training(weights=everything, biases=method in ("full", "bitfit"), **chosen)
    return training, everything or prompts > 0, prompts


def _parts(names: Sequence[str], argument: str) -> tuple[str, ...]:
    """Linear layers of a block by their names."""
    if isinstance(names, str) or not isinstance(names, Sequence):
        raise TypeError(f"`{argument}` must be a sequence of names, got {names!r}")
    missing = [name for name in names if name not in _LAYERS]
    if missing or not names:
        raise ValueError(
            f"`{argument}` must name linear layers of the trunk, it has none called {missing}"
        )
    return tuple(names)


_LAYERS = ("query", "key", "value", "out", "up", "down")
_OPTIONS: dict[str, dict[str, Any]] = {
    "full": {},
    "bitfit": {},
    "probe": {},
    "adapter": {"bottleneck": 16, "after": ("out", "down")},
    "lora": {"rank": 8, "targets": ("query", "value"), "alpha": None},
    "prompt": {"prompts": 8},
}


def _ladder(
    add: Account,
    config: TrunkConfig,
    batch: int,
    length: int,
    fed: bool,
    *,
    reduction: int = 4,
    rungs: Sequence[int] | None = None,
    form: str = "gated",
    heads: int | None = None,
    feed_forward: int | None = None,
    normalise: bool = False,
    temperature: float = 0.1,
    initial: str = "random",
) -> int:
    """A trunk without a graph and the ladder beside it; the ladder's width.

    What is normalised is kept instead of the state itself; temperature and first values cost
    nothing.
    """
    check.choice(form, "form", FORMS)
    check.choice(initial, "initial", INITIALS)
    check.positive(temperature, "temperature")
    rows, wide = batch * length, config.width
    frozen = _Walk(Account(), batch, length, _Training())
    for k in range(config.layers):
        frozen.block(f"{k}", wide, config.heads, config.feed_forward, False, f"{k}.states")
    add.forward += frozen.account.forward
    width = narrow_width(wide, reduction)
    if initial == "copied":
        check_copied(wide, width, heads, feed_forward)
        own = config.heads, config.feed_forward
    else:
        own = side_sizes(width, heads, feed_forward)
    sides = len(check_rungs(rungs, config.layers))
    for k in range(sides + 1 if fed else 1):
        add.keep(f"trunk {k}", rows * wide)
        add.product(rows, wide, width, live=False, trained=True)
    gated = fed and form == "gated"
    if gated:
        add.keep("gates", sides)
        add.trained += sides
    walk = _Walk(add, batch, length, _Training(weights=True, biases=True))
    for k in range(sides):
        if gated:
            add.keep(f"side {k - 1}", rows * width)
            add.keep(f"rung {k}", rows * width)
        x = f"mixed {k}" if gated else f"side {k - 1}"
        walk.block(f"side {k}", width, *own, True, x)
    add.norm(f"side {sides - 1}", rows, width, True, True, True)
    return width


def _check_sizes(config: TrunkConfig, batch: int, length: int) -> None:
    if not isinstance(config, TrunkConfig):
        raise TypeError(f"`config` must be a TrunkConfig, got {type(config).__name__}")
    check.whole(batch, "batch", 1)
    check.whole(length, "length", 1)


def _head(add: Account, batch: int, width: int, classes: int, live: bool) -> None:
    """The mean state, a linear layer, and the cross-entropy of its scores."""
    add.keep("pooled", batch * width)
    add.product(batch, width, classes, live, trained=True)
    add.trained += classes
    add.keep("log-probabilities", batch * classes)
    add.keep("targets", batch, LONG)
    add.keep("weight of the targets", 1)
