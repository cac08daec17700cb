"""Ways to fit a pretrained trunk to a task: which parameters are trained, and what is added.

Each function takes a trunk and returns a *body*: a copy of it (the one given is never touched) that
maps tokens (B, n) to states (B, n, width), with `requires_grad` set on what the method trains. A
`Tunable` puts a head on a body.

- `full_tuning`: everything;
- `linear_probe`: nothing; the head alone learns;
- `bitfit`: the biases (Ben Zaken et al., arXiv 2106.10199);
- `adapter`: two narrow layers behind each attention and feed-forward part (Houlsby et al.,
  arXiv 1902.00751);
- `prompt_tuning`: trained vectors before the embedded tokens (Lester et al., arXiv 2104.08691;
  P-tuning without its LSTM, Liu et al., arXiv 2103.10385);
- `lora`: W + (α / r) B A, through `peft` (Hu et al., arXiv 2106.09685).

The ladder, which runs beside the trunk, is in `lib.tuning.ladder`. Left out: prefixes in every
layer (P-tuning v2), dropout, merging.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib import _checks as check
from lib.neural import linear
from lib.tuning.ladder import LadderSideNetwork, NoRungs
from lib.tuning.trunk import Trunk

__all__ = [
    "METHODS",
    "Adapter",
    "PointHead",
    "PooledHead",
    "PositionHead",
    "Prompted",
    "Tunable",
    "adapter",
    "bitfit",
    "body_width",
    "full_tuning",
    "linear_probe",
    "lora",
    "make_body",
    "prompt_tuning",
    "trainable",
    "trainable_count",
]


METHODS = ("full", "adapter", "lora", "bitfit", "prompt", "ladder", "no_rungs", "probe")


# --- heads ----------------------------------------------------------------------------------------


class PooledHead(nn.Module):
    """Classes of a whole window: one linear layer on the mean state.

    Parameters
    ----------
    width, classes : int
    generator : torch.Generator
    """

    def __init__(self, width: int, classes: int, generator: torch.Generator) -> None:
        super().__init__()
        _check_head(width, generator, classes)
        self.readout = linear(width, classes, generator)

    def forward(self, hidden: Tensor, places: Tensor | None = None) -> Tensor:
        """Scores (B, classes) of states (B, n, width); `places` is not used."""
        return self.readout(hidden.mean(1))


class PositionHead(nn.Module):
    """Classes of one place per window: one linear layer on its state.

    Parameters
    ----------
    width, classes : int
    generator : torch.Generator
    """

    def __init__(self, width: int, classes: int, generator: torch.Generator) -> None:
        super().__init__()
        _check_head(width, generator, classes)
        self.readout = linear(width, classes, generator)

    def forward(self, hidden: Tensor, places: Tensor) -> Tensor:
        """Scores (B, classes) of states (B, n, width) at places (B,)."""
        return self.readout(_at(hidden, places))


class PointHead(nn.Module):
    """Points from one place of a window to another: score_j = (Q h_place) · (K h_j) / √width.

    Parameters
    ----------
    width : int
    generator : torch.Generator
    """

    def __init__(self, width: int, generator: torch.Generator) -> None:
        super().__init__()
        _check_head(width, generator)
        self.query, self.key = linear(width, width, generator), linear(width, width, generator)

    def forward(self, hidden: Tensor, places: Tensor) -> Tensor:
        """Scores (B, n) of all places, from states (B, n, width) and places (B,)."""
        q = self.query(_at(hidden, places))  # (B, width)
        scores = self.key(hidden) @ q[..., None]  # (B, n, 1)
        return scores[..., 0] / math.sqrt(hidden.shape[-1])


class Tunable(nn.Module):
    """A body with a head: what is trained on a task.

    Parameters
    ----------
    body : nn.Module
        Maps its input to states (B, n, width): what a function of this module returns, or a
        ladder.
    head : nn.Module
        Takes states and places.
    """

    def __init__(self, body: nn.Module, head: nn.Module) -> None:
        super().__init__()
        for name, part in (("body", body), ("head", head)):
            if not isinstance(part, nn.Module):
                raise TypeError(f"`{name}` must be a torch.nn.Module, got {type(part).__name__}")
        self.body, self.head = body, head

    def forward(self, tokens: Tensor, places: Tensor | None = None) -> Tensor:
        """What the head makes of the body's states."""
        return self.head(self.body(tokens), places)


def trainable(model: nn.Module) -> list[nn.Parameter]:
    """The parameters that are trained, each once."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"`model` must be a torch.nn.Module, got {type(model).__name__}")
    return [p for p in model.parameters() if p.requires_grad]


def trainable_count(model: nn.Module) -> int:
    """How many numbers are trained."""
    return sum(p.numel() for p in trainable(model))


# --- bodies ---------------------------------------------------------------------------------------


def full_tuning(trunk: nn.Module) -> nn.Module:
    """Everything is trained.

    Parameters
    ----------
    trunk : nn.Module

    Returns
    -------
    nn.Module
        A copy.
    """
    return _copy(trunk).requires_grad_(True)


def linear_probe(trunk: nn.Module) -> nn.Module:
    """Nothing of the trunk is trained.

    Parameters
    ----------
    trunk : nn.Module

    Returns
    -------
    nn.Module
        A frozen copy.
    """
    return _frozen(trunk)


def bitfit(trunk: nn.Module) -> nn.Module:
    """The biases of the trunk are trained, those of its LayerNorms too.

    Parameters
    ----------
    trunk : nn.Module
        Any with parameters called "bias".

    Returns
    -------
    nn.Module
        A copy.
    """
    body = _frozen(trunk)
    biases = [p for name, p in body.named_parameters() if name.rpartition(".")[2] == "bias"]
    if not biases:
        raise ValueError('`trunk` must have parameters called "bias" for BitFit, it has none')
    for bias in biases:
        bias.requires_grad_(True)
    return body


class Adapter(nn.Module):
    """x + U gelu(V x) with V to a narrow width and U back; U is 0 at first, so this is x.

    Parameters
    ----------
    width, bottleneck : int
    generator : torch.Generator
    """

    def __init__(self, width: int, bottleneck: int, generator: torch.Generator) -> None:
        super().__init__()
        self.down = linear(width, bottleneck, generator)
        self.up = linear(bottleneck, width, generator, gain=0.0)

    def forward(self, x: Tensor) -> Tensor:
        """The same shape, (…, width)."""
        return x + self.up(F.gelu(self.down(x)))


def adapter(
    trunk: nn.Module,
    bottleneck: int,
    generator: torch.Generator,
    after: Sequence[str] = ("out", "down"),
) -> nn.Module:
    """An adapter behind each linear layer of these names, before the skip connection is added.

    Parameters
    ----------
    trunk : nn.Module
    bottleneck : int
        Width inside an adapter.
    generator : torch.Generator
        Source of the adapters' initial parameters.
    after : sequence of str
        Last parts of the layers' names; "out" and "down" end the two halves of a Trunk's block.

    Returns
    -------
    nn.Module
        A frozen copy with trained adapters.
    """
    check.whole(bottleneck, "bottleneck", 1)
    check.generator(generator)
    body = _frozen(trunk)
    for name in _linear_layers(body, after, "after"):
        layer = body.get_submodule(name)
        added = Adapter(layer.out_features, bottleneck, generator).to(layer.weight)
        body.set_submodule(name, nn.Sequential(layer, added))
    return body


class Prompted(nn.Module):
    """A trunk that sees m trained vectors before the embedded tokens.

    Their own states are dropped at the end, so that place j is still token j.

    Parameters
    ----------
    trunk : Trunk
    prompts : int
        m.
    generator : torch.Generator
    """

    def __init__(self, trunk: Trunk, prompts: int, generator: torch.Generator) -> None:
        super().__init__()
        self.trunk = trunk
        width = trunk.config.width
        words = trunk.embedding.weight.detach()
        scale = words.square().mean().sqrt()  # that of a token's vector
        drawn = torch.randn(prompts, width, generator=generator).to(words)
        self.prompt = nn.Parameter(scale * drawn)

    def forward(self, tokens: Tensor) -> Tensor:
        """States (B, n, width) of tokens (B, n)."""
        x = self.trunk.embed(tokens)  # (B, n, width)
        x = torch.cat([self.prompt.expand(len(x), -1, -1), x], 1)  # (B, m + n, width)
        for block in self.trunk.blocks:
            x = block(x)
        return self.trunk.norm(x)[:, len(self.prompt) :]


def prompt_tuning(trunk: Trunk, prompts: int, generator: torch.Generator) -> Prompted:
    """Trained vectors at the input; the trunk is frozen.

    Parameters
    ----------
    trunk : Trunk
    prompts : int
        How many vectors.
    generator : torch.Generator
        Source of their initial values, as large as the tokens' own vectors.

    Returns
    -------
    Prompted
        With a frozen copy of the trunk.
    """
    if not isinstance(trunk, Trunk):
        raise TypeError(f"`trunk` must be a lib.tuning.Trunk, got {type(trunk).__name__}")
    check.whole(prompts, "prompts", 1)
    check.generator(generator)
    return Prompted(_frozen(trunk), prompts, generator)


def lora(
    trunk: nn.Module,
    rank: int,
    generator: torch.Generator,
    alpha: float | None = None,
    targets: Sequence[str] = ("query", "value"),
) -> nn.Module:
    """Low-rank updates of linear layers, x (W + (α / r) B A)ᵀ, by `peft`.

    Parameters
    ----------
    trunk : nn.Module
    rank : int
        r.
    generator : torch.Generator
        Source of A, normal of deviation 1 / √inputs; B is 0 at first.
    alpha : float, optional
        2r unless given.
    targets : sequence of str
        Last parts of the layers' names; queries and values unless given, as in the paper.

    Returns
    -------
    nn.Module
        A frozen copy with trained A and B.
    """
    from peft import LoraConfig, inject_adapter_in_model

    check.whole(rank, "rank", 1)
    check.generator(generator)
    scale = 2.0 * rank if alpha is None else check.positive(alpha, "alpha")
    body = _frozen(trunk)
    names = _linear_layers(body, targets, "targets")
    config = LoraConfig(r=rank, lora_alpha=scale, target_modules=names, lora_dropout=0.0)
    with torch.random.fork_rng(devices=[]):  # peft draws A from the global generator
        body = inject_adapter_in_model(config, body)
    for name, p in body.named_parameters():
        if ".lora_A." in name:
            drawn = torch.empty(p.shape, dtype=p.dtype)  # where the generator is
            nn.init.normal_(drawn, 0.0, 1 / math.sqrt(p.shape[1]), generator=generator)
            p.data.copy_(drawn)
    return body


def make_body(method: str, trunk: Trunk, generator: torch.Generator, **options: Any) -> nn.Module:
    """The body of a method by its name.

    Parameters
    ----------
    method : str
        One of `METHODS`: "full", "adapter", "lora", "bitfit", "prompt", "ladder", "no_rungs" (the
        control of the ladder) or "probe".
    trunk : Trunk
    generator : torch.Generator
        Source of what is added to the trunk.
    **options
        Of the method: `bottleneck` (16 unless given) and `after`; `rank` (8), `alpha` and
        `targets`; `prompts` (8); all of :class:`lib.tuning.LadderSideNetwork` but the width.

    Returns
    -------
    nn.Module
        Maps tokens (B, n) to states (B, n, `body_width`).
    """
    check.choice(method, "method", METHODS)
    if not isinstance(trunk, Trunk):
        raise TypeError(f"`trunk` must be a lib.tuning.Trunk, got {type(trunk).__name__}")
    if method in _PLAIN:
        if options:
            raise TypeError(f'method "{method}" has no options, got {sorted(options)}')
        return _PLAIN[method](trunk)
    if method in _LADDERS:
        width = trunk.config.width
        kind = _LADDERS[method]
        return kind(trunk, trunk.blocks, width=width, generator=generator, **options)
    make, defaults = _WITH_PARTS[method]
    return make(trunk, generator=generator, **{**defaults, **options})


def body_width(body: nn.Module, trunk: Trunk) -> int:
    """Width of the states that a body gives."""
    return body.width if isinstance(body, LadderSideNetwork) else trunk.config.width


_PLAIN = {"full": full_tuning, "probe": linear_probe, "bitfit": bitfit}
_LADDERS = {"ladder": LadderSideNetwork, "no_rungs": NoRungs}
_WITH_PARTS = {
    "adapter": (adapter, {"bottleneck": 16}),
    "lora": (lora, {"rank": 8}),
    "prompt": (prompt_tuning, {"prompts": 8}),
}


# --- shared ---------------------------------------------------------------------------------------


def _copy(trunk: nn.Module) -> nn.Module:
    if not isinstance(trunk, nn.Module):
        raise TypeError(f"`trunk` must be a torch.nn.Module, got {type(trunk).__name__}")
    if next(trunk.parameters(), None) is None:
        raise ValueError("`trunk` must have parameters, it has none")
    return copy.deepcopy(trunk)


def _frozen(trunk: nn.Module) -> nn.Module:
    return _copy(trunk).requires_grad_(False)


def _linear_layers(body: nn.Module, names: Sequence[str], argument: str) -> list[str]:
    """Full names of the linear layers whose names end so."""
    if isinstance(names, str) or not isinstance(names, Sequence):
        raise TypeError(f"`{argument}` must be a sequence of names, got {names!r}")
    found = [
        name
        for name, part in body.named_modules()
        if isinstance(part, nn.Linear) and name.rpartition(".")[2] in names
    ]
    missing = [n for n in names if all(name.rpartition(".")[2] != n for name in found)]
    if missing or not found:
        raise ValueError(
            f"`{argument}` must name linear layers of `trunk`, it has none called {missing}"
        )
    return found


def _at(hidden: Tensor, places: Tensor) -> Tensor:
    """States (B, width) at one place of each window."""
    if not isinstance(places, Tensor) or places.dtype != torch.int64:
        kind = places.dtype if isinstance(places, Tensor) else type(places).__name__
        raise TypeError(f"`places` must be a torch.Tensor of int64, got {kind}")
    if places.shape != hidden.shape[:1]:
        raise ValueError(
            f"`places` must have shape ({len(hidden)},), one per window, got {tuple(places.shape)}"
        )
    bad = (places < 0) | (places >= hidden.shape[1])
    if bad.any():
        raise ValueError(
            f"`places` must lie in 0 … {hidden.shape[1] - 1}, got {places[bad][0].item()}"
        )
    return hidden[torch.arange(len(hidden), device=hidden.device), places]


def _check_head(width: int, generator: torch.Generator, classes: int = 2) -> None:
    check.whole(width, "width", 1)
    check.whole(classes, "classes", 2)
    check.generator(generator)
