"""Ladder side-tuning: a narrow network beside a frozen trunk, fed by rungs from its blocks.

Only the side network is trained. The trunk runs forward without a graph, so that back-propagation
never enters it, and its states can be computed once and kept (`states`, `from_states`).

Sources: Sung, Cho and Bansal, LST: Ladder Side-Tuning, arXiv 2206.06522 (gated form, pruning);
kexue.fm/archives/9138 and its code (additive form). Notation: trunk of width D with states h_0
(what enters the first block) and h_k (what leaves block k); side network of width
d = D / reduction with states g_l; N rungs.

Left out: the paper's Fisher information as the importance of a weight (here: its magnitude), its
encoder–decoder form, and its map back to the width of a frozen output layer.
"""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from inspect import Parameter
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from lib import _checks as check
from lib.tuning.trunk import Block

__all__ = ["FORMS", "INITIALS", "LadderSideNetwork", "NoRungs", "path_weights", "prune"]

FORMS = ("gated", "additive")
INITIALS = ("random", "pruned", "copied")
HALF = (torch.float16, torch.bfloat16)
HEAD_WIDTH = 32  # of the side network's attention, as in Su's ladder (width 128, 4 heads)


class LadderSideNetwork(nn.Module):
    r"""A side network beside any model that holds a stack of blocks.

    Gated form, of the paper: g_l = Side_l(μ_l g_{l-1} + (1 - μ_l) W_l h_{k_l}) with
    μ_l = σ(α_l / T), one number α_l per rung, 0 at first.
    Additive form, Su's: g_l = Side_l(g_{l-1}) + W_l h_{k_l}.
    Both start from g_0 = W_0 h_0 and end with a LayerNorm.

    The model is held, not owned: its parameters are no parameters of the ladder, it is never
    changed, and it runs in evaluation mode without a graph whatever its own flags say. The ladder
    is made on the model's device. Its blocks attend in both directions, to all that the attention
    mask does not hide.
    `state_dict` holds the ladder alone; `copy.deepcopy` and pickle take the model along.

    Parameters
    ----------
    model : nn.Module
        The trunk.
    blocks : nn.ModuleList or str
        Its stack of blocks, or the stack's name inside it, such as "encoder.layer" for a
        `transformers.BertModel`. Each block takes states of shape (B, n, D) first and returns
        them, alone or first in a tuple.
    width : int
        D, the width of the trunk's states.
    generator : torch.Generator
        Source of all initial parameters.
    reduction : int
        D / d, a divisor of the width.
    rungs : sequence of int, optional
        Blocks, from 0, whose outputs feed the ladder, in rising order: one side block each. All
        unless given; fewer is the paper's layer drop.
    form : str
        "gated" or "additive".
    temperature : float
        T of the gates.
    heads, feed_forward : int, optional
        Of the side blocks; heads of about 32 coordinates and 4d unless given.
    normalise : bool
        Whether each state of the trunk is brought to mean 0 and variance 1 (a LayerNorm without
        parameters) before its W_l.
    initial : str
        "random"; "pruned": slices of the trunk's own blocks, see :func:`prune`, and W_l picks the
        coordinates kept, the same in every layer; "copied": copies of the trunk's blocks, of any
        kind that needs nothing but states, and W_l the identity, for `reduction` 1.
    mask : str, optional
        Name of the argument in which `model` takes the mask of the tokens that run through the
        blocks. Unless given, "decoder_attention_mask" for blocks of the decoder of an
        encoder–decoder of `transformers`, "attention_mask" for all others.

    Attributes
    ----------
    width : int
        d, the width of what comes out.
    rungs : tuple of int
    alpha : nn.Parameter or None
        α_l, shape (N,); None in the additive form.

    Raises
    ------
    ValueError, TypeError
        For a stack that is empty, or not the model's; rungs out of range or order; a reduction
        that does not divide the width; "pruned" for blocks other than :class:`lib.tuning.Block`;
        a mask that the model does not take. When the ladder runs: for blocks that run several
        times, and for copies of blocks that need more than states.

    Examples
    --------
    >>> trunk = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    >>> stack = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    >>> blocks = nn.ModuleList(stack)
    >>> model = nn.Module()
    >>> model.blocks, model.forward = blocks, stack.forward
    >>> draw = torch.Generator().manual_seed(0)
    >>> ladder = LadderSideNetwork(model, "blocks", width=8, reduction=2, generator=draw)
    >>> ladder(torch.ones(3, 5, 8)).shape
    torch.Size([3, 5, 4])
    >>> ladder.gates()
    tensor([0.5000, 0.5000], grad_fn=<SigmoidBackward0>)
    """

    def __init__(
        self,
        model: nn.Module,
        blocks: nn.ModuleList | str,
        *,
        width: int,
        generator: torch.Generator,
        reduction: int = 4,
        rungs: Sequence[int] | None = None,
        form: str = "gated",
        temperature: float = 0.1,
        heads: int | None = None,
        feed_forward: int | None = None,
        normalise: bool = False,
        initial: str = "random",
        mask: str | None = None,
    ) -> None:
        super().__init__()
        stack = _stack(model, blocks)
        device = _device(stack)
        self._trunk = (model, stack)  # in a tuple, so that it does not become a part of the ladder
        self.mask = _mask_name(model, stack, mask)
        self.trunk_width = check.whole(width, "width", 1)
        check.generator(generator)
        self.rungs = check_rungs(rungs, len(stack))
        self.form = check.choice(form, "form", FORMS)
        self.temperature = check.positive(temperature, "temperature")
        self.width = narrow_width(self.trunk_width, reduction)
        downs = [_down(self.trunk_width, self.width, generator) for _ in self._sources()]
        self.downs = nn.ModuleList(downs).to(device)
        self.before = (
            nn.LayerNorm(self.trunk_width, elementwise_affine=False) if normalise else nn.Identity()
        )
        initial = check.choice(initial, "initial", INITIALS)
        if initial == "copied":
            self.blocks = self._copies(stack, heads, feed_forward)
        else:
            sizes = side_sizes(self.width, heads, feed_forward)
            side = [Block(self.width, *sizes, generator) for _ in self.rungs]
            self.blocks = nn.ModuleList(side).to(device)
        if initial == "pruned":
            self._prune(stack)
        gated = self.form == "gated" and len(self._sources()) > 1
        self.alpha = nn.Parameter(torch.zeros(len(self.rungs))) if gated else None
        self.norm = nn.LayerNorm(self.width)
        self.to(device)

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Run the trunk on what it takes, then the ladder: g_N after the norm, (B, n, d).

        The ladder's own blocks obey the mask that the trunk is given, by name or by its place.
        """
        given = _attention_mask(self._trunk[0], self.mask, args, kwargs)
        return self.from_states(self.states(*args, **kwargs), given)

    def states(self, *args: Any, **kwargs: Any) -> tuple[Tensor, ...]:
        """States of the trunk that the ladder reads: h_0, then h_k of every rung, (B, n, D) each.

        Parameters
        ----------
        *args, **kwargs
            What the trunk's `forward` takes.

        Notes
        -----
        They depend on nothing that is trained: one pass over the data serves all epochs.
        """
        model, stack = self._trunk
        found: dict[int, Tensor] = {}
        sources = self._sources()
        hooks = [
            stack[0].register_forward_pre_hook(partial(_keep_input, found), with_kwargs=True),
            *(stack[k].register_forward_hook(partial(_keep_output, found, k)) for k in sources[1:]),
        ]
        try:
            with torch.no_grad(), _evaluating(model):
                model(*args, **kwargs)
        finally:
            for hook in hooks:
                hook.remove()
        missing = [k for k in sources if k not in found]
        if missing:
            raise ValueError(f"`model` must run all its blocks, block {max(missing[0], 0)} did not")
        return tuple(found[k] for k in sources)

    def from_states(self, states: Sequence[Tensor], attention_mask: Tensor | None = None) -> Tensor:
        """The ladder on states of the trunk that are there already.

        Parameters
        ----------
        states : sequence of N + 1 Tensor, each of shape (B, n, D)
            As :meth:`states` gives them. Those of a trunk in half precision are brought to the
            ladder's dtype.
        attention_mask : Tensor of shape (B, n), optional
            1 or True at tokens, 0 or False at padding, to which no token looks.

        Returns
        -------
        Tensor, shape (B, n, d)
        """
        self._check(states)
        tokens = self._check_mask(attention_mask, states[0])
        dtype = self.norm.weight.dtype
        ready = (self.before(h.to(dtype)) for h in states)
        first, *rest = (down(h) for down, h in zip(self.downs, ready, strict=True))
        return self.norm(self._climb(first, rest, tokens))

    def gates(self) -> Tensor:
        """μ_l = σ(α_l / T), shape (N,), of the gated form."""
        if self.alpha is None:
            raise ValueError('`form` must be "gated", with rungs, for a ladder to have gates')
        return torch.sigmoid(self.alpha / self.temperature)

    def _climb(self, g: Tensor, rungs: Sequence[Tensor], tokens: Tensor | None) -> Tensor:
        """From g_0 and all W_l h_{k_l} to g_N."""
        if self.alpha is None:
            for block, rung in zip(self.blocks, rungs, strict=True):
                g = _side(block, g, tokens) + rung
            return g
        for block, rung, mu in zip(self.blocks, rungs, self.gates(), strict=True):
            g = _side(block, torch.lerp(rung, g, mu), tokens)  # lerp: μ g + (1 - μ) rung
        return g

    def _sources(self) -> tuple[int, ...]:
        """What is read of the trunk: -1 for h_0, k for the output of block k."""
        return (-1, *self.rungs)

    def _copies(
        self, stack: nn.ModuleList, heads: int | None, feed_forward: int | None
    ) -> nn.ModuleList:
        check_copied(self.trunk_width, self.width, heads, feed_forward)
        own = self.downs[0].weight  # a trunk in half precision has a ladder in single
        copies = nn.ModuleList(copy.deepcopy(stack[k]) for k in self.rungs).to(own)
        for p in copies.parameters():
            p.requires_grad_(True)
        for down in self.downs:
            nn.init.eye_(down.weight)
        return copies

    @torch.no_grad()
    def _prune(self, stack: nn.ModuleList) -> None:
        residual = prune(stack, self.rungs, self.blocks)
        for down in self.downs:
            nn.init.zeros_(down.weight)
            down.weight[torch.arange(self.width, device=residual.device), residual] = 1.0

    def _check(self, states: Sequence[Tensor]) -> None:
        if isinstance(states, Tensor) or not isinstance(states, Sequence):
            raise TypeError(f"`states` must be a tuple of tensors, got {type(states).__name__}")
        if len(states) != len(self._sources()):
            raise ValueError(
                f"`states` must hold {len(self._sources())} tensors, got {len(states)}"
            )
        for h in states:
            own = self.norm.weight
            if not isinstance(h, Tensor) or h.dtype not in (own.dtype, *HALF):
                kind = h.dtype if isinstance(h, Tensor) else type(h).__name__
                raise TypeError(
                    f"`states` must be tensors of {own.dtype}, as the ladder, or of half "
                    f"precision, got {kind}"
                )
            if h.device != own.device:
                raise ValueError(f"`states` must be on {own.device}, as the ladder, got {h.device}")
            if h.ndim != 3 or h.shape[-1] != self.trunk_width or h.numel() == 0:
                raise ValueError(
                    f"`states` must have shape (B, n, {self.trunk_width}) each, "
                    f"got {tuple(h.shape)}"
                )
            if h.shape != states[0].shape:
                raise ValueError(
                    f"`states` must have one shape, got {tuple(states[0].shape)} "
                    f"and {tuple(h.shape)}"
                )

    def _check_mask(self, mask: Any, state: Tensor) -> Tensor | None:
        """True at tokens, shape (B, n); None where nothing is hidden."""
        if mask is None:
            return None
        if not isinstance(mask, Tensor):
            raise TypeError(f"`attention_mask` must be a tensor, got {type(mask).__name__}")
        if mask.shape != state.shape[:2]:
            raise ValueError(
                f"`attention_mask` must have shape (B, n) = {tuple(state.shape[:2])} for the "
                f"ladder's blocks, got {tuple(mask.shape)}"
            )
        tokens = mask.to(device=state.device, dtype=torch.bool)
        if not torch.equal(tokens.to(mask), mask):
            raise ValueError("`attention_mask` must be 1 at tokens and 0 at padding")
        if tokens.all():
            return None
        if not tokens.any(1).all():
            raise ValueError("`attention_mask` must leave each row a token")
        if not all(isinstance(block, Block) for block in self.blocks):
            raise ValueError(
                '`attention_mask` must hide nothing for initial="copied": how copies of the '
                "model's blocks take a mask is not known"
            )
        return tokens


class NoRungs(LadderSideNetwork):
    """The control: the same side network on the embeddings alone, g_l = Side_l(g_{l-1}).

    It has the blocks of the ladder and W_0, but no gates and no W_l: what a ladder scores beyond it
    comes from the trunk. `rungs` says, by their number, how many blocks there are. The parameters
    are those of :class:`LadderSideNetwork`.
    """

    def _sources(self) -> tuple[int, ...]:
        return (-1,)

    def _climb(self, g: Tensor, rungs: Sequence[Tensor], tokens: Tensor | None) -> Tensor:
        for block in self.blocks:
            g = _side(block, g, tokens)
        return g


def path_weights(gates: Tensor) -> Tensor:
    """How much of g_0 and of each rung would reach g_N if the side blocks were identities.

    g_0 keeps Π μ_k over all k, and rung l keeps (1 - μ_l) Π μ_k over k > l. They sum to 1. At the
    start, where all μ = 1/2, they are 2^-N, 2^-N, …, 1/4, 1/2: late blocks dominate.

    Parameters
    ----------
    gates : Tensor of a floating dtype, shape (N,)
        μ_1 … μ_N, each in [0, 1].

    Returns
    -------
    Tensor, shape (N + 1,)
        First g_0, then the rungs in order.
    """
    check.state(gates, "gates")
    if gates.ndim != 1:
        raise ValueError(f"`gates` must have shape (N,), got {tuple(gates.shape)}")
    bad = (gates < 0) | (gates > 1)
    if bad.any():
        raise ValueError(f"`gates` must lie in [0, 1], got {gates[bad][0].item():g}")
    one = gates.new_ones(1)
    after = torch.cat([gates.flip(0).cumprod(0).flip(0), one])  # Π μ_k over k ≥ l, and 1 at last
    return after * torch.cat([one, 1 - gates])


# --- the trunk ------------------------------------------------------------------------------------


def _stack(model: nn.Module, blocks: nn.ModuleList | str) -> nn.ModuleList:
    if not isinstance(model, nn.Module):
        raise TypeError(f"`model` must be a torch.nn.Module, got {type(model).__name__}")
    stack: Any = blocks
    if isinstance(blocks, str):
        found = dict(model.named_modules())
        if blocks not in found:
            raise ValueError(f"`blocks` must name a part of `model`, which has no {blocks!r}")
        stack = found[blocks]
    if not isinstance(stack, nn.ModuleList):
        raise TypeError(
            f"`blocks` must be a torch.nn.ModuleList or its name, got {type(stack).__name__}"
        )
    if len(stack) == 0:
        raise ValueError("`blocks` must hold at least one block, got an empty stack")
    if all(part is not stack for part in model.modules()):
        raise ValueError("`blocks` must be a part of `model`")
    return stack


def check_rungs(rungs: Sequence[int] | None, blocks: int) -> tuple[int, ...]:
    if rungs is None:
        return tuple(range(blocks))
    if isinstance(rungs, str) or not isinstance(rungs, Sequence):
        raise TypeError(f"`rungs` must be a sequence of blocks, got {rungs!r}")
    chosen = tuple(check.whole(k, "rungs", 0, blocks - 1) for k in rungs)
    if not chosen:
        raise ValueError("`rungs` must name at least one block; the control is NoRungs")
    if any(a >= b for a, b in pairwise(chosen)):
        raise ValueError(f"`rungs` must rise, got {chosen}")
    return chosen


def check_copied(trunk: int, width: int, heads: int | None, feed_forward: int | None) -> None:
    if width != trunk:
        raise ValueError('`reduction` must be 1 for initial="copied", whose widths are equal')
    if heads is not None or feed_forward is not None:
        raise ValueError(
            '`heads` and `feed_forward` must not be given for initial="copied": '
            "the blocks keep their own"
        )


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, without dropout, and afterwards each part's own mode again."""
    modes = [(part, part.training) for part in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


def _keep_input(
    found: dict[int, Tensor], block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    _keep(found, -1, args[0] if args else next(iter(kwargs.values())))


def _keep_output(
    found: dict[int, Tensor], k: int, block: nn.Module, args: tuple[Any, ...], output: Any
) -> None:
    _keep(found, k, _first(output))


def _keep(found: dict[int, Tensor], k: int, state: Tensor) -> None:
    if k in found:
        raise ValueError(
            f"`model` must run each of its blocks once, block {max(k, 0)} ran again: a block that "
            "serves several layers has no states of its own"
        )
    found[k] = state


def _mask_name(model: nn.Module, stack: nn.ModuleList, name: str | None) -> str:
    """The argument of `model` that masks the tokens which run through the stack."""
    names, kinds = _arguments(model)
    if name is None:
        decoder = getattr(model, "get_decoder", lambda: None)()
        inside = isinstance(decoder, nn.Module) and any(p is stack for p in decoder.modules())
        own = "decoder_attention_mask"
        return own if inside and own in names else "attention_mask"
    if not isinstance(name, str):
        raise TypeError(f"`mask` must be the name of an argument, got {name!r}")
    if name not in names and Parameter.VAR_KEYWORD not in kinds:
        raise ValueError(
            f"`mask` must be an argument of `model`, which takes {names}, got {name!r}"
        )
    return name


def _arguments(model: nn.Module) -> tuple[list[str], set[Any]]:
    """Names of the arguments that a model takes, and of which kinds they are."""
    found = inspect.signature(model.forward).parameters.values()
    others = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
    return [p.name for p in found if p.kind not in others], {p.kind for p in found}


def _attention_mask(
    model: nn.Module, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """What a call hands to the trunk under a name, or at its place."""
    if name in kwargs:
        return kwargs[name]
    names, kinds = _arguments(model)
    if Parameter.VAR_POSITIONAL in kinds and len(args) > max(1, len(names)):
        raise ValueError(
            "`model` takes arguments without names, and a mask may be among them: hand over all "
            "but the first by name, or use `states` and `from_states`"
        )
    return dict(zip(names, args, strict=False)).get(name)


def _device(stack: nn.ModuleList) -> torch.device:
    """Where the blocks' numbers are; on the CPU if they have none."""
    first = next(stack.parameters(), None)
    return torch.device("cpu") if first is None else first.device


def _side(block: nn.Module, x: Tensor, tokens: Tensor | None) -> Tensor:
    """A block of the ladder; copies of the trunk's take states alone."""
    if isinstance(block, Block):
        return block(x) if tokens is None else block(x, tokens)
    try:
        return _first(block(x))
    except (TypeError, AttributeError) as error:
        raise ValueError(
            f'`blocks` must run on states alone for initial="copied", these do not: {error}'
        ) from error


def _first(output: Any) -> Tensor:
    """States that a block returns, alone or first in a tuple."""
    return output[0] if isinstance(output, tuple) else output


# --- the side network -----------------------------------------------------------------------------


def narrow_width(width: int, reduction: int) -> int:
    check.whole(reduction, "reduction", 1)
    if width % reduction:
        raise ValueError(f"`reduction` must divide `width` = {width}, got {reduction}")
    return width // reduction


def _down(inputs: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    """W_l, without a bias in either form."""
    layer = nn.utils.skip_init(nn.Linear, inputs, outputs, bias=False)
    nn.init.normal_(layer.weight, 0.0, 1 / math.sqrt(inputs), generator=generator)
    return layer


def side_sizes(width: int, heads: int | None, feed_forward: int | None) -> tuple[int, int]:
    """Heads and inner width of a side block.

    Unless given: as many heads as divide the width into even parts of at least 32 coordinates, and
    four times the width.
    """
    if width % 2:
        raise ValueError(f"`width` / `reduction` must be even, for rotary positions, got {width}")
    if heads is None:
        most = max(1, width // HEAD_WIDTH)
        heads = next(h for h in range(most, 0, -1) if width % (2 * h) == 0)
    elif width % (2 * check.whole(heads, "heads", 1)):
        raise ValueError(
            f"`heads` must divide the ladder's width {width} into even parts, got {heads}"
        )
    feed = 4 * width if feed_forward is None else check.whole(feed_forward, "feed_forward", 1)
    return heads, feed


# --- initialisation by pruning --------------------------------------------------------------------


@torch.no_grad()
def prune(stack: Sequence[nn.Module], rungs: Sequence[int], side: Sequence[nn.Module]) -> Tensor:
    """Fill narrow blocks with slices of wide ones: what is kept fits together in all layers.

    - One set of residual coordinates for all layers, since a skip connection adds coordinate j of
      one layer to coordinate j of the next.
    - Whole heads; inside a head every s-th pair of coordinates, s = wide / narrow head width,
      which are the pairs that turn with the frequencies of the narrow head,
      10000^(-2ts/wide) = 10000^(-2t/narrow).
    - Whole units of the feed-forward part.

    In each group the parts with the largest sum of |weights| stay.

    Parameters
    ----------
    stack : sequence of Block
        The wide blocks.
    rungs : sequence of int
        The wide block that each narrow one is cut from.
    side : sequence of Block
        The narrow blocks, changed in place.

    Returns
    -------
    Tensor of int64, shape (narrow width,)
        The residual coordinates kept, in rising order.

    References
    ----------
    Sung, Cho and Bansal, arXiv 2206.06522, section 3.3, where a weight's importance is its Fisher
    information.
    """
    for block in (*stack, *side):
        if not isinstance(block, Block):
            raise TypeError(
                'initial="pruned" needs `blocks` that are lib.tuning.Block, '
                f"got {type(block).__name__}"
            )
    wide = [stack[k] for k in rungs]
    residual = _largest(sum(_coordinate_sizes(block) for block in wide), side[0].out.out_features)
    for narrow, block in zip(side, wide, strict=True):
        _cut(block, narrow, residual)
    return residual


def _cut(wide: Block, narrow: Block, residual: Tensor) -> None:
    """One narrow block out of one wide block."""
    attended = _head_rows(wide, narrow)
    sizes = _row_sizes(wide.up) + wide.down.weight.abs().sum(0)
    units = _largest(sizes, narrow.up.out_features)
    for name in ("query", "key", "value"):
        _slice(getattr(wide, name), getattr(narrow, name), attended, residual)
    _slice(wide.out, narrow.out, residual, attended)
    _slice(wide.up, narrow.up, units, residual)
    _slice(wide.down, narrow.down, residual, units)
    for name in ("before_attention", "before_feed"):
        for part in ("weight", "bias"):
            kept = getattr(getattr(wide, name), part)[residual]
            getattr(getattr(narrow, name), part).copy_(kept)


def _slice(wide: nn.Linear, narrow: nn.Linear, rows: Tensor, columns: Tensor) -> None:
    narrow.weight.copy_(wide.weight[rows][:, columns])
    narrow.bias.copy_(wide.bias[rows])


def _head_rows(wide: Block, narrow: Block) -> Tensor:
    """Rows of the query, key and value maps that stay: whole heads, every s-th pair of each."""
    width, kept = wide.out.in_features // wide.heads, narrow.out.in_features // narrow.heads
    if narrow.heads > wide.heads or width % kept:
        raise ValueError(
            f"`heads` must be at most the trunk's {wide.heads}, and the head width {kept} a "
            f'divisor of the trunk\'s {width}, for initial="pruned", got {narrow.heads} heads'
        )
    sizes = sum(_row_sizes(layer) for layer in (wide.query, wide.key, wide.value))
    sizes = (sizes + wide.out.weight.abs().sum(0)).unflatten(0, (wide.heads, width)).sum(1)
    heads = _largest(sizes, narrow.heads)
    pairs = torch.arange(0, width // 2, width // kept, device=sizes.device)
    inside = torch.stack([2 * pairs, 2 * pairs + 1], 1).flatten()  # (kept,)
    return (heads[:, None] * width + inside).flatten()


def _coordinate_sizes(block: Block) -> Tensor:
    """Σ |weights| that read or write each residual coordinate, shape (D,)."""
    read = sum(part.weight.abs().sum(0) for part in (block.query, block.key, block.value, block.up))
    return read + block.out.weight.abs().sum(1) + block.down.weight.abs().sum(1)


def _row_sizes(layer: nn.Linear) -> Tensor:
    return layer.weight.abs().sum(1)


def _largest(sizes: Tensor, count: int) -> Tensor:
    """Places of the largest numbers, in rising order."""
    if count > len(sizes):
        raise ValueError(
            f'`feed_forward` must be at most the trunk\'s {len(sizes)} for initial="pruned", '
            f"got {count}"
        )
    return sizes.topk(count).indices.sort().values
