"""Pretrain the trunk: ``python -m lib.tuning.pretrain`` makes the checkpoint that the book ships.

A masked language model: a fifth of the tokens of a window is hidden, and the trunk guesses them
from the others. AdamW, one rise and fall of the learning rate. What comes out, `trunk.safetensors`,
has a card beside it, `trunk.md`, with data, settings and the loss on files that were never trained
on. With the same Python, the same PyTorch and the same processor a second run gives the same file;
elsewhere sums may be rounded differently.

Left out: going on after an interruption, several devices.
"""

from __future__ import annotations

import argparse
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from lib import _checks as check
from lib.attention.encoder import check_tokens
from lib.data.stdlib_text import CorpusError
from lib.tuning.corpus import LENGTH, Corpus, read_corpus
from lib.tuning.training import CHUNK, batches, descend
from lib.tuning.trunk import CHECKPOINT, Trunk, TrunkConfig, save_trunk, write_whole

__all__ = [
    "BATCH",
    "HIDDEN",
    "LEARNING_RATE",
    "STEPS",
    "Pretrained",
    "Score",
    "hide",
    "main",
    "pretrain",
    "score",
]

STEPS, BATCH, LEARNING_RATE = 2000, 32, 2e-3
HIDDEN = 0.2  # share of the tokens that are hidden
STRIDE = 16  # tokens between the starts of two training windows
EVERY = 50  # steps between two lines of progress

WEIGHTS, HIDING, TESTING, ORDER = 31, 32, 33, 34  # purposes of a seed's generators


class Score(NamedTuple):
    """How well hidden tokens are guessed."""

    loss: float  # nats per hidden token
    accuracy: float
    tokens: int  # how many were hidden


@dataclass(frozen=True)
class Pretrained:
    """A pretrained trunk and how it came about.

    Attributes
    ----------
    trunk : Trunk
        Its weights are rounded to half precision, as the file has them.
    losses : ndarray, shape (steps,)
        Cross-entropy of each training batch before the step, in nats per hidden token.
    before, after : Score
        On the test part of the corpus, with the same tokens hidden.
    """

    trunk: Trunk
    losses: NDArray[np.float64]
    before: Score
    after: Score


def hide(tokens: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Choose the tokens to hide: each with probability `share`, at least one in every window.

    Parameters
    ----------
    tokens : Tensor, shape (B, n)
    share : float
        Strictly between 0 and 1.
    generator : torch.Generator

    Returns
    -------
    Tensor of bool, shape (B, n)
    """
    if not isinstance(tokens, Tensor) or tokens.ndim != 2 or tokens.numel() == 0:
        got = tuple(tokens.shape) if isinstance(tokens, Tensor) else type(tokens).__name__
        raise ValueError(f"`tokens` must be a tensor of shape (B, n) and not be empty, got {got}")
    check.open_unit(share, "share")
    check.generator(generator)
    draw = torch.rand(tokens.shape, generator=generator)
    return (draw < share) | (draw == draw.amin(1, keepdim=True))


@torch.no_grad()
def score(trunk: Trunk, windows: Tensor, hidden: Tensor, mask: int) -> Score:
    """Guess the hidden tokens of some windows.

    Parameters
    ----------
    trunk : Trunk
    windows : Tensor of int64, shape (N, n)
    hidden : Tensor of bool, shape (N, n)
        At least one is True.
    mask : int
        The token that hides.

    Returns
    -------
    Score
    """
    check_tokens(windows, trunk.config.vocabulary)
    if hidden.dtype != torch.bool or hidden.shape != windows.shape or not hidden.any():
        raise ValueError(
            f"`hidden` must be bool of shape {tuple(windows.shape)} with a True in it, "
            f"got {hidden.dtype} of shape {tuple(hidden.shape)}"
        )
    total, right = 0.0, 0
    for some, where in zip(windows.split(CHUNK), hidden.split(CHUNK), strict=True):
        logits = trunk.logits(trunk(some.masked_fill(where, mask))[where])
        total += F.cross_entropy(logits, some[where], reduction="sum").item()
        right += int((logits.argmax(-1) == some[where]).sum())
    count = int(hidden.sum())
    return Score(total / count, right / count, count)


def pretrain(
    corpus: Corpus,
    config: TrunkConfig | None = None,
    *,
    steps: int = STEPS,
    batch: int = BATCH,
    seed: int = 0,
    length: int = LENGTH,
    learning_rate: float = LEARNING_RATE,
    on_step: Callable[[int, float], None] | None = None,
) -> Pretrained:
    """Train a trunk to guess hidden tokens of the corpus' pretraining part.

    Parameters
    ----------
    corpus : Corpus
    config : TrunkConfig, optional
        Its vocabulary must be that of the corpus.
    steps, batch : int
        Steps, and windows per step.
    seed : int
        Of everything that is drawn.
    length : int
        Tokens of a window.
    learning_rate : float
        At its peak.
    on_step : callable, optional
        Called with the number of each step, from 0, and its loss.

    Returns
    -------
    Pretrained

    Raises
    ------
    ValueError
        If sizes do not fit, or a setting is out of its range.
    FloatingPointError
        If a loss is not finite.
    """
    if not isinstance(corpus, Corpus):
        raise TypeError(f"`corpus` must be a lib.tuning.corpus.Corpus, got {type(corpus).__name__}")
    config = TrunkConfig(len(corpus.words)) if config is None else config
    if config.vocabulary != len(corpus.words):
        raise ValueError(
            f"`config` must have the corpus' vocabulary, {len(corpus.words)}, "
            f"got {config.vocabulary}"
        )
    for name, value in (("steps", steps), ("batch", batch), ("length", length)):
        check.whole(value, name, 1)
    check.whole(seed, "seed", 0)
    drawn = {
        purpose: torch.Generator().manual_seed(1000 * seed + purpose)
        for purpose in (WEIGHTS, HIDING, TESTING)
    }
    trunk = Trunk(config, drawn[WEIGHTS])
    windows = corpus.windows("pretraining", length, min(STRIDE, length))
    unseen = corpus.windows("test", length)
    asked = hide(unseen, HIDDEN, drawn[TESTING])
    before = score(trunk, unseen, asked, corpus.mask)
    done = 0

    def loss(rows: Tensor) -> Tensor:
        nonlocal done
        some = windows[rows]
        where = hide(some, HIDDEN, drawn[HIDING])
        hidden = trunk(some.masked_fill(where, corpus.mask))[where]
        value = F.cross_entropy(trunk.logits(hidden), some[where])
        if on_step is not None:
            on_step(done, value.item())
        done += 1
        return value

    order = batches(np.arange(len(windows)), batch, np.random.default_rng([ORDER, seed]))
    losses = descend([(trunk.parameters(), learning_rate)], loss, order, steps=steps)
    trunk.requires_grad_(False).eval()
    for weight in trunk.parameters():
        weight.copy_(weight.half())
    return Pretrained(trunk, losses, before, score(trunk, unseen, asked, corpus.mask))


# --- the command ----------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Pretrain, and write `trunk.safetensors` and `trunk.md`; the exit status."""
    options = _options(arguments)
    complaint = _not_writable(options.out)
    if complaint:
        print(f"pretrain: {complaint}", file=sys.stderr)
        return 2
    torch.set_num_threads(1)  # sums in one order, whatever the machine
    try:
        corpus = read_corpus()
    except CorpusError as error:
        print(f"pretrain: {error}", file=sys.stderr)
        return 2
    counted = ", ".join(
        f"{sum(len(s.tokens) for s in corpus.part(p)):,} tokens for {p}"
        for p in ("pretraining", "test")
    )
    print(f"{len(corpus.words)} words; {counted}; {options.steps} steps", flush=True)
    start = time.monotonic()
    recent: list[float] = []

    def report(step: int, loss: float) -> None:
        recent.append(loss)
        if (step + 1) % EVERY == 0 or step + 1 == options.steps:
            spent = time.monotonic() - start
            mean = sum(recent) / len(recent)
            print(f"step {step + 1:5d}  loss {mean:.3f}  {spent:6.0f} s", flush=True)
            recent.clear()

    made = pretrain(corpus, steps=options.steps, seed=options.seed, on_step=report)
    path = options.out / CHECKPOINT.name
    save_trunk(made.trunk, corpus.words, path)
    card = _card(made, corpus, options.steps, options.seed, path.stat().st_size)
    write_whole(path.with_suffix(".md"), card.encode())
    print(
        f"on unseen files: loss {made.before.loss:.3f} before, {made.after.loss:.3f} after; "
        f"{made.after.accuracy:.1%} right; {path} written, {path.stat().st_size:,} bytes"
    )
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("pretrain", description="Pretrain the trunk.")
    parser.add_argument("--steps", type=_at_least(1), default=STEPS, help=f"default {STEPS}")
    parser.add_argument("--seed", type=_at_least(0), default=0, help="default 0")
    parser.add_argument(
        "--out",
        type=Path,
        default=CHECKPOINT.parent,
        help="folder that the two files go to; default: where the book reads them",
    )
    return parser.parse_args(arguments)


def _at_least(low: int) -> Callable[[str], int]:
    def whole(text: str) -> int:
        if not text.isdecimal() or int(text) < low:
            raise argparse.ArgumentTypeError(f"must be a whole number from {low} on, got {text!r}")
        return int(text)

    return whole


def _not_writable(folder: Path) -> str:
    """Why no file can be put there; empty if one can. Tried, as permissions alone do not tell."""
    if not folder.is_dir():
        return f"no folder at {folder}"
    try:
        with tempfile.TemporaryFile(dir=folder):
            return ""
    except OSError as error:
        return f"cannot write to {folder}: {error.strerror}"


def _card(made: Pretrained, corpus: Corpus, steps: int, seed: int, size: int) -> str:
    """What a reader should know about the file, in Markdown."""
    config, before, after = made.trunk.config, made.before, made.after
    parameters = sum(p.numel() for p in made.trunk.parameters())
    rows = [
        f"| {part} | {len(corpus.part(part))} | {sum(len(s.tokens) for s in corpus.part(part)):,} |"
        for part in ("pretraining", "training", "test")
    ]
    sizes = ", ".join(f"{name} {value}" for name, value in asdict(config).items())
    words, python = len(corpus.words), platform.python_version()
    seen = steps * BATCH * LENGTH
    own = sum(len(s.tokens) for s in corpus.pretraining)
    return f"""# trunk.safetensors

A small Transformer encoder that guesses hidden tokens of Python source. Made for one chapter of
this book, in which it is fine-tuned; good for nothing else.

- **Model.** Pre-norm blocks, rotary positions, GELU, output layer tied to the embedding:
  {sizes}.
  {parameters:,} parameters in half precision; {size:,} bytes with the words.
- **Data.** The standard library of CPython {python} as installed: sources without
  comments, a mark for every string, {words:,} words, rarer tokens replaced by their shape.
  Files are dealt to three parts by a checksum of their names; only the first is trained on.

| part | files | tokens |
|---|---|---|
{chr(10).join(rows)}

- **Training.** {steps:,} steps of {BATCH} windows of {LENGTH} tokens: {seen:,} tokens, about
  {seen / own:.1f} times the pretraining part; {HIDDEN:.0%} of the tokens hidden. AdamW without
  weight decay, learning rate up to {LEARNING_RATE:g}, one rise and fall; seed {seed}.
  PyTorch {torch.__version__}, one thread of a CPU ({platform.machine()}).
- **Result.** Cross-entropy of {before.tokens:,} hidden tokens of the test part, in nats:
  {before.loss:.3f} before training, {after.loss:.3f} after. Guessing evenly has
  ln {words} = {np.log(words):.3f}; before training the scores are worse than
  that, since a state resembles the mask that it started from.
  Right guesses: {before.accuracy:.1%} before, {after.accuracy:.1%} after.
- **Make it again.** `make trunk`, or `python -m lib.tuning.pretrain --steps {steps} --seed {seed}`.
  The same Python, PyTorch and kind of processor give the same file, others one that differs a
  little.
- **Licence.** The weights are under the licence of the book's code. They were learned from
  CPython's library, which is under the Python Software Foundation License; of its text the file
  holds single words only, the commonest names, numbers and operators.
"""


if __name__ == "__main__":
    sys.exit(main())
