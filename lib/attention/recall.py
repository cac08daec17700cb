"""Associative recall on real tokens: one attention head that must find one pair among n.

A haystack is n consecutive pairs (token, next token) of a text.  The question is a token that
occurs exactly once in it, the answer its successor: what an induction head does, with nothing
but one softmax between question and answer.  Trained on short haystacks and asked in longer
ones, the head shows dilution by itself: no position enters, so nothing else can fail.

With ``qk_norm`` queries and keys have norm sqrt(d), the assumption of kexue.fm/archives/8823;
scores then lie in [-sqrt(d), sqrt(d)].  Without it training widens the margin as far as it
likes, and dilution sets in later.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from lib.attention import _validation as check
from lib.attention.lengths import (
    FACTORS,
    Factor,
    LengthTable,
    check_lengths,
    check_seeds,
    factor_at,
    named_factors,
)
from lib.attention.side_by_side import Parameters, data_generators, draw_parameters, fit, take
from lib.data.stdlib_text import Split

__all__ = [
    "Haystacks",
    "RecallConfig",
    "RecallModels",
    "RecallTable",
    "draw_haystacks",
    "evaluate_recall",
    "recall_queries_keys",
    "recall_scores",
    "train_recall",
]

TRAINING, TESTING = 1, 2  # purposes of a seed's data generators


@dataclass(frozen=True)
class RecallConfig:
    """Settings of the recall experiment.

    Attributes
    ----------
    length : int
        Pairs in a training haystack, n0.
    width : int
        Width d of embeddings, queries and keys.
    qk_norm : bool
        Whether queries and keys are scaled to norm sqrt(d).
    steps, batch, learning_rate
        Training: number of steps, haystacks per step and seed, peak rate of Adam.
    """

    length: int = 32
    width: int = 32
    qk_norm: bool = True
    steps: int = 500
    batch: int = 128
    learning_rate: float = 6e-3

    def __post_init__(self) -> None:
        for name, least in (("length", 2), ("width", 2), ("steps", 1), ("batch", 1)):
            check.whole(getattr(self, name), name, least)
        check.positive(self.learning_rate, "learning_rate")


@dataclass(frozen=True)
class RecallModels:
    """Trained recall heads, one per seed.

    Attributes
    ----------
    config : RecallConfig
    seeds : tuple of int
    parameters : dict of Tensor
        ``embedding`` (S, V, d), ``query``, ``key``, ``value`` (S, d, d), ``bias`` (S, 1, V).
    losses : ndarray, shape (S, steps)
        Training loss in nats.
    """

    config: RecallConfig
    seeds: tuple[int, ...]
    parameters: Parameters
    losses: NDArray[np.float64]

    @property
    def vocabulary(self) -> int:
        """Number of different tokens."""
        return self.parameters["embedding"].shape[1]


@dataclass(frozen=True)
class RecallTable(LengthTable):
    """`LengthTable` with the attention weight that stays on the needle.

    Attributes
    ----------
    needle : ndarray, shape (seeds, factors, lengths)
        Mean attention weight on the one pair that holds the answer.
    """

    needle: NDArray[np.float64]


@dataclass(frozen=True)
class Haystacks:
    """Pairs of a text with one question about each haystack.

    Attributes
    ----------
    keys, values : ndarray of int64, shape (B, n)
        First and second token of each pair.
    place : ndarray of int64, shape (B,)
        Where the needle stands: ``keys[b, place[b]]`` is asked, ``values[b, place[b]]`` wanted.
    """

    keys: NDArray[np.int64]
    values: NDArray[np.int64]
    place: NDArray[np.int64]

    @property
    def asked(self) -> NDArray[np.int64]:
        """The token in question, shape (B,)."""
        return np.take_along_axis(self.keys, self.place[:, None], axis=1)[:, 0]

    @property
    def answer(self) -> NDArray[np.int64]:
        """Its successor, shape (B,)."""
        return np.take_along_axis(self.values, self.place[:, None], axis=1)[:, 0]

    def shortened(self, n: int) -> Haystacks:
        """The same questions in the middle of fewer pairs: n consecutive ones with the needle.

        The needle keeps its relative place, and what is unique in the long haystack is unique
        in each part of it.
        """
        long = self.keys.shape[1]
        if not 1 <= n <= long:
            raise ValueError(f"`n` must lie between 1 and {long}, got {n}")
        place = self.place * n // long
        columns = (self.place - place)[:, None] + np.arange(n)  # (B, n)
        return Haystacks(
            np.take_along_axis(self.keys, columns, axis=1),
            np.take_along_axis(self.values, columns, axis=1),
            place,
        )


def draw_haystacks(
    tokens: NDArray[np.int64], length: int, count: int, rng: np.random.Generator
) -> Haystacks:
    """Draw haystacks at random places of a text, each with a random token that is unique in it.

    Parameters
    ----------
    tokens : ndarray of int64, shape (N,)
        Token numbers from 0.
    length, count : int
        Pairs per haystack n, number of haystacks B.
    rng : numpy Generator

    Raises
    ------
    ValueError
        If the text is shorter than ``length + 1``, or next to no haystack holds a unique token.
    """
    if len(tokens) < length + 1:
        raise ValueError(f"`tokens` must hold at least {length + 1} tokens, got {len(tokens)}")
    windows, places, found = [], [], 0
    for _ in range(100):
        start = rng.integers(0, len(tokens) - length, count)
        window = tokens[start[:, None] + np.arange(length + 1)]  # (B, n + 1)
        keys = np.arange(count)[:, None] * (window.max() + 1) + window[:, :-1]  # one range a row
        unique = np.bincount(keys.ravel())[keys] == 1  # (B, n)
        place = np.where(unique, rng.random(unique.shape), -1.0).argmax(axis=1)
        good = unique.any(axis=1)
        windows.append(window[good])
        places.append(place[good])
        found += int(good.sum())
        if found >= count:
            window, place = np.concatenate(windows)[:count], np.concatenate(places)[:count]
            return Haystacks(window[:, :-1], window[:, 1:], place)
    raise ValueError(f"`tokens`: hardly any {length} in a row hold a token that occurs once")


def train_recall(
    corpus: Split,
    config: RecallConfig | None = None,
    seeds: Sequence[int] = (0, 1, 2),
    *,
    on_step: Callable[[int, NDArray[np.float64]], None] | None = None,
) -> RecallModels:
    """Train one recall head per seed, all seeds side by side.

    Parameters
    ----------
    corpus : Split
        Token numbers, as `lib.data.stdlib_text.tokens` gives them; only ``train`` is read.
    config : RecallConfig, optional
    seeds : sequence of int
        Each fixes the initial parameters and the training haystacks of one head.
    on_step : callable, optional
        Called after each step with its number and the losses, shape (S,).

    Returns
    -------
    RecallModels
    """
    config = RecallConfig() if config is None else config
    seeds = check_seeds(seeds)
    parameters = draw_parameters(lambda g: _initial(g, corpus.size, config.width), seeds)
    generators = data_generators(seeds, TRAINING)

    def losses() -> Tensor:
        drawn = [draw_haystacks(corpus.train, config.length, config.batch, g) for g in generators]
        keys, values, asked, answer = _stacked(drawn)
        logits, _ = _read(parameters, _scores(parameters, config, asked, keys), values)
        entropy = F.cross_entropy(logits.flatten(0, 1), answer.flatten(), reduction="none")
        return entropy.view(answer.shape).mean(1)  # (S,)

    history = fit(
        parameters,
        losses,
        steps=config.steps,
        learning_rate=config.learning_rate,
        on_step=on_step,
    )
    return RecallModels(config, seeds, parameters, history)


@torch.no_grad()
def evaluate_recall(
    models: RecallModels,
    corpus: Split,
    lengths: Sequence[int],
    factors: Sequence[str] | Mapping[str, Factor] = tuple(FACTORS),
    *,
    questions: int = 512,
) -> RecallTable:
    """Ask trained heads the same questions in ever longer haystacks.

    Each question is drawn in a haystack of the longest length, from the corpus' test half, with
    a token that is unique in all of it; shorter haystacks are parts of it around the needle.  So
    every length and every factor answers the same questions, and only the hay grows.

    Parameters
    ----------
    models : RecallModels
    corpus : Split
        Only ``test`` is read.
    lengths : sequence of int
        Increasing; the first need not be the training length.
    factors : sequence of str or mapping
        Names in `lib.attention.lengths.FACTORS`, or names with functions of (n, n0).
    questions : int
        Questions per seed, each seed with its own.

    Returns
    -------
    RecallTable
    """
    lengths = check_lengths(lengths, at_least=2)
    rules = named_factors(factors)
    questions = check.whole(questions, "questions", at_least=1)
    _check_vocabulary(models, corpus)
    shape = (len(models.seeds), len(rules), len(lengths))
    accuracy, entropy, needle = np.empty(shape), np.empty(shape), np.empty(shape)
    for s, rng in enumerate(data_generators(models.seeds, TESTING)):
        parameters = {name: p[s : s + 1] for name, p in models.parameters.items()}
        longest = draw_haystacks(corpus.test, lengths[-1], questions, rng)
        for j, n in enumerate(lengths):
            hay = longest.shortened(n)
            keys, values, asked, answer = _stacked([hay])
            place = torch.from_numpy(hay.place)[None, :, None]
            scores = _scores(parameters, models.config, asked, keys)  # once for all factors
            for i, rule in enumerate(rules.values()):
                scaled = scores * factor_at(rule, n, models.config.length)
                logits, p = _read(parameters, scaled, values)
                accuracy[s, i, j] = (logits.argmax(-1) == answer).double().mean()
                entropy[s, i, j] = torch.special.entr(p).sum(-1).double().mean()
                needle[s, i, j] = p.gather(-1, place).double().mean()
    return RecallTable(
        models.seeds, tuple(rules), lengths, accuracy, entropy, questions, needle=needle
    )


@torch.no_grad()
def recall_queries_keys(
    models: RecallModels, corpus: Split, length: int, *, questions: int = 64
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Trained queries, and the keys that each meets in a real haystack of the test half.

    Scores are ``q @ k / sqrt(d)``, as in softmax attention; with ``qk_norm`` the vectors come
    out normalised.  The needle is the first key, so that the first m keys are a shorter haystack
    that still holds the answer.

    Parameters
    ----------
    models : RecallModels
    corpus : Split
    length : int
        Keys per query, n.
    questions : int
        Queries per seed, B.

    Returns
    -------
    q : ndarray, shape (S, B, d)
    k : ndarray, shape (S, B, n, d)
        4 S B n d bytes.
    """
    q, k, keys = _questions(models, corpus, length, questions)
    return q.numpy(), take(k, keys).numpy()


@torch.no_grad()
def recall_scores(
    models: RecallModels, corpus: Split, length: int, *, questions: int = 64
) -> NDArray[np.float64]:
    """Dot products q·k of `recall_queries_keys`, before any scale, without making the keys.

    Parameters
    ----------
    models, corpus, length, questions
        As there.

    Returns
    -------
    ndarray, shape (S, B, n)
        The needle's score first.
    """
    q, k, keys = _questions(models, corpus, length, questions)
    return (q @ k.mT).gather(-1, keys).double().numpy()


def _questions(
    models: RecallModels, corpus: Split, length: int, questions: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries (S, B, d), the key of each token (S, V, d), tokens of the hay, needle first."""
    length = check.whole(length, "length", at_least=2)
    questions = check.whole(questions, "questions", at_least=1)
    _check_vocabulary(models, corpus)
    generators = data_generators(models.seeds, TESTING)
    drawn = [draw_haystacks(corpus.test, length, questions, rng) for rng in generators]
    keys, _, asked, _ = _stacked(drawn)
    place = torch.from_numpy(np.stack([hay.place for hay in drawn]))[..., None]  # (S, B, 1)
    keys = keys.scatter(-1, place, keys[..., :1].clone())  # the first key takes the needle's place
    keys[..., 0] = asked
    return *_queries_keys(models.parameters, models.config, asked), keys


def _initial(generator: torch.Generator, vocabulary: int, width: int) -> Parameters:
    """Parameters of one head before training."""

    def normal(*shape: int, std: float) -> Tensor:
        return std * torch.randn(*shape, generator=generator)

    return {
        "embedding": normal(vocabulary, width, std=1.0),
        "query": normal(width, width, std=width**-0.5),
        "key": normal(width, width, std=width**-0.5),
        "value": normal(width, width, std=width**-0.5),
        "bias": torch.zeros(1, vocabulary),
    }


def _queries_keys(
    parameters: Parameters, config: RecallConfig, asked: Tensor
) -> tuple[Tensor, Tensor]:
    """Queries of the tokens asked (S, B, d), and the key of every token there is (S, V, d)."""
    embedding = parameters["embedding"]  # (S, V, d)
    q = take(embedding, asked) @ parameters["query"]  # (S, B, d)
    k = embedding @ parameters["key"]  # (S, V, d)
    if config.qk_norm:
        q, k = F.rms_norm(q, q.shape[-1:]), F.rms_norm(k, k.shape[-1:])  # norm sqrt(d)
    return q, k


def _scores(parameters: Parameters, config: RecallConfig, asked: Tensor, keys: Tensor) -> Tensor:
    """Scores of the pairs in each haystack, shape (S, B, n).

    A score depends on the two tokens alone, so each question is scored against the V different
    tokens once, and the haystack only looks its scores up: no (S, B, n, d) array is made.
    """
    q, k = _queries_keys(parameters, config, asked)
    return (q / math.sqrt(config.width) @ k.mT).gather(-1, keys)  # (S, B, V) -> (S, B, n)


def _read(parameters: Parameters, scores: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Attend and answer: logits over the vocabulary (S, B, V) and weights p (S, B, n)."""
    embedding = parameters["embedding"]  # (S, V, d)
    p = scores.softmax(-1)  # (S, B, n)
    # sum_j p_j v_j, with the weights of equal tokens added up first
    weight = p.new_zeros(*p.shape[:2], embedding.shape[1]).scatter_add(-1, values, p)  # (S, B, V)
    o = weight @ embedding @ parameters["value"]  # (S, B, d)
    return torch.baddbmm(parameters["bias"], o, embedding.mT), p


def _stacked(drawn: Sequence[Haystacks]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Keys, values (S, B, n), tokens asked and answers (S, B) of one batch per seed."""
    columns = zip(*((hay.keys, hay.values, hay.asked, hay.answer) for hay in drawn), strict=True)
    keys, values, asked, answer = (torch.from_numpy(np.stack(column)) for column in columns)
    return keys, values, asked, answer


def _check_vocabulary(models: RecallModels, corpus: Split) -> None:
    if corpus.size != models.vocabulary:
        raise ValueError(
            f"`corpus` must have the {models.vocabulary} symbols of training, got {corpus.size}"
        )
