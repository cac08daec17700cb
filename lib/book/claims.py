"""From measurements, one for each seed, to a verdict: holds, does not hold, or inconclusive.

A *rule* is stated before the measurement is looked at: which quantity, which margin, which
interval. It puts a confidence interval around the quantity and compares the whole interval with
the margin. The claim holds if all of the interval satisfies it, does not hold if none of it does,
and is inconclusive otherwise. The seeds are the unit of repetition: an interval speaks of other
seeds of the same experiment, not of other data or other machines.

Verdict, rule and seeds are stored and compared; every measured figure stands inside
``<book-measured>`` and may differ from machine to machine.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from lib.book._intervals import (
    METHODS,
    Interval,
    interval_of,
    spread,
    welch_interval,
    wilson_interval,
)
from lib.book._publish import CLAIM_MIME, number, show, text

Verdict = Literal["holds", "does not hold", "inconclusive"]
Method = Literal["t", "bootstrap", "sign", "wilcoxon"]
HOLDS, FAILS, OPEN = "holds", "does not hold", "inconclusive"
MARKS = {HOLDS: "✓", FAILS: "✗", OPEN: "?"}


@dataclass(frozen=True)
class Rule:
    """How measurements decide.

    Attributes
    ----------
    words : str
        The rule in words, without any measured figure.
    interval : Interval
        Of the quantity that the rule speaks of.
    allowed : (float, float)
        Where the quantity must lie.
    closed : bool
        Whether the ends of ``allowed`` belong to it.
    seeds : int
        For how many seeds there are measurements.
    effect : str
        The effect size in words; empty where there is none.
    """

    words: str
    interval: Interval
    allowed: tuple[float, float]
    closed: bool
    seeds: int
    effect: str = ""

    @property
    def verdict(self) -> Verdict:
        """Compare the whole interval with what is allowed."""
        low, high = self.allowed
        if self.closed:
            inside = low <= self.interval.low and self.interval.high <= high
            outside = self.interval.high < low or self.interval.low > high
        else:
            inside = low < self.interval.low and self.interval.high < high
            outside = self.interval.high <= low or self.interval.low >= high
        return HOLDS if inside else FAILS if outside else OPEN


@dataclass(frozen=True)
class Control:
    """A result that the experiment must give if it measures what it says."""

    words: str
    rule: Rule
    expect: Verdict

    @property
    def passed(self) -> bool:
        """Whether the control came out as it must."""
        return self.rule.verdict == self.expect


@dataclass(frozen=True)
class Claim:
    """A judged claim. It was shown when it was judged, so a notebook shows it only once."""

    id: str
    statement: str
    verdict: Verdict
    rule: Rule
    seeds: tuple[int, ...]
    unit: str = ""
    article: str = ""
    article_says: Verdict | None = None
    control: Control | str | None = None

    @property
    def anchor(self) -> str:
        """The id of the claim in the page."""
        return f"claim-{self.id}"

    @property
    def against_article(self) -> str:
        """One sentence on our verdict beside the article's; empty if the article has none."""
        if self.article_says is None:
            return ""
        reported = "that it holds" if self.article_says == HOLDS else "that it does not hold"
        if self.verdict == OPEN:
            return f"The article reports {reported}; our seeds do not settle it."
        if self.verdict == self.article_says:
            return f"This agrees with the article, which reports {reported}."
        return f"This contradicts the article, which reports {reported}."

    @property
    def control_words(self) -> str:
        """One sentence on the control; empty without one."""
        if self.control is None:
            return ""
        if isinstance(self.control, str):
            return f"Control: {self.control}"
        outcome = (
            f"{self.control.rule.verdict}, as it must"
            if self.control.passed
            else f"{self.control.rule.verdict}, but should be “{self.control.expect}”: "
            "the experiment does not measure what it says"
        )
        return f"Control: {self.control.words} ({outcome})."

    @property
    def data(self) -> dict[str, Any]:
        """What is stored: verdict and rule, no measured figure."""
        return {
            "id": self.id,
            "anchor": self.anchor,
            "statement": self.statement,
            "verdict": self.verdict,
            "rule": self.rule.words,
            "seeds": list(self.seeds),
            "unit": self.unit,
            "article": self.article,
            "article_says": self.article_says,
            "contradicts": {self.verdict, self.article_says} == {HOLDS, FAILS},
            "control": self.control_words,
        }

    @property
    def measured(self) -> str:
        """The measured figures in words."""
        unit = f" {self.unit}" if self.unit else ""
        found = self.rule.interval
        figures = f"{found.estimate:.4g}{unit} (from {found.low:.4g} to {found.high:.4g})"
        if found.low == found.high:
            figures = f"{found.estimate:.4g}{unit} for every seed, so the interval has no width"
        return f"{figures}; {self.rule.effect}" if self.rule.effect else figures

    @property
    def html(self) -> str:
        """The claim as HTML, every measured figure inside ``<book-measured>``."""
        state = self.verdict.replace(" ", "-")
        seeds = ", ".join(map(str, self.seeds))
        lines = [
            f'<p class="book-claim-statement">{text(self.statement)}</p>',
            f'<p class="book-claim-line"><strong class="book-claim-verdict">'
            f'<span aria-hidden="true">{MARKS[self.verdict]}</span> {self.verdict}</strong> '
            f'<span class="book-claim-rule">{text(self.rule.words)}; seeds {seeds}</span></p>',
            '<p class="book-claim-measured">Measured: '
            f"<book-measured>{text(self.measured)}</book-measured></p>",
        ]
        if self.control_words:
            lines.append(f'<p class="book-claim-control">{text(self.control_words)}</p>')
        if self.article:
            lines.append(
                '<p class="book-claim-article">Reported by the article (theirs): '
                f"{text(self.article)}</p>"
            )
        if self.against_article:
            kind = " book-claim-contradiction" if self.data["contradicts"] else ""
            lines.append(f'<p class="book-claim-compared{kind}">{self.against_article}</p>')
        inner = "\n".join(lines)
        return (
            f'<div class="book-claim" id="{self.anchor}" data-verdict="{state}">\n{inner}\n</div>'
        )

    @property
    def plain(self) -> str:
        """The claim as text, without figures."""
        against = f" {self.against_article}" if self.against_article else ""
        return f"{MARKS[self.verdict]} {self.id}: {self.verdict}. {self.statement}{against}"

    @property
    def bundle(self) -> dict[str, Any]:
        """The mime bundle that a notebook shows and stores."""
        return {CLAIM_MIME: self.data, "text/html": self.html, "text/plain": self.plain}

    def _ipython_display_(self) -> None:
        """Show nothing: the claim was shown when it was judged."""


def claim(
    id: str,
    statement: str,
    *,
    rule: Rule,
    seeds: Sequence[int],
    unit: str = "",
    article: str = "",
    article_says: Verdict | None = None,
    control: Control | str | None = None,
) -> Claim:
    """Judge a claim by a rule and show the verdict.

    Parameters
    ----------
    id : str
        Unique in the book: small letters, digits, dashes.
    statement : str
        The claim in one sentence that is either true or false.
    rule : Rule
        Made by :func:`greater`, :func:`less`, :func:`at_least`, :func:`at_most`, :func:`within`
        or :func:`proportion` from one measurement for each seed.
    seeds : sequence of int
        The seeds, at least 3 different ones, in the order of the measurements.
    unit : str
        Unit of the measured quantity.
    article : str
        What the article reported, with its setting.
    article_says : {"holds", "does not hold"}, optional
        The article's own verdict. A verdict of ours that contradicts it is printed as such.
    control : Control or str, optional
        Made by :func:`control`: a control that comes out wrong makes the claim inconclusive.
        A plain string only describes the control.

    Returns
    -------
    Claim
        With ``verdict`` "holds", "does not hold" or "inconclusive".
    """
    if not isinstance(id, str) or not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", id):
        raise ValueError(f"`id` must be small letters, digits and dashes, got {id!r}")
    if not isinstance(statement, str) or not statement.strip():
        raise ValueError(f"`statement` must be a sentence, got {statement!r}")
    if not isinstance(rule, Rule):
        raise TypeError(f"`rule` must be made by one of the rules, got {rule!r:.60}")
    if article_says not in (HOLDS, FAILS, None):
        raise ValueError(f"`article_says` must be {HOLDS!r}, {FAILS!r} or None: {article_says!r}")
    if control is not None and not isinstance(control, (Control, str)):
        raise TypeError(f"`control` must be a control or a string, got {control!r:.60}")
    numbers = _seeds(seeds)
    if rule.seeds != len(numbers):
        raise ValueError(
            f"`seeds` names {len(numbers)} seeds, but the rule has {rule.seeds} measurements"
        )
    failed = isinstance(control, Control) and not control.passed
    judged = Claim(
        id=id,
        statement=statement.strip(),
        verdict=OPEN if failed else rule.verdict,
        rule=rule,
        seeds=numbers,
        unit=unit,
        article=article,
        article_says=article_says,
        control=control,
    )
    show(judged.bundle)
    return judged


def control(words: str, rule: Rule, expect: Verdict = HOLDS) -> Control:
    """Return a control for :func:`claim`: what must come out if the experiment is sound.

    Parameters
    ----------
    words : str
        What was done, say "the same network at the length it was trained on".
    rule : Rule
        Judges the control's own measurements.
    expect : {"holds", "does not hold", "inconclusive"}
        What the rule must say.
    """
    if expect not in MARKS:
        raise ValueError(f"`expect` must be one of {', '.join(MARKS)}, got {expect!r}")
    if not isinstance(rule, Rule):
        raise TypeError(f"`rule` must be made by one of the rules, got {rule!r:.60}")
    return Control(words, rule, expect)


# Rules --------------------------------------------------------------------------------------


def greater(
    a: Any,
    b: Any,
    margin: float = 0.0,
    *,
    paired: bool = True,
    method: Method = "t",
    confidence: float = 0.95,
    names: tuple[str, str] = ("the first", "the second"),
) -> Rule:
    """``a − b`` exceeds ``margin``.

    Parameters
    ----------
    a, b : array of shape (seeds,)
        Measurements of two methods. Paired: the same seed stands at the same place.
    margin : float
        The smallest difference that matters.
    paired : bool
        False: two independent groups, Welch's t interval.
    method : {"t", "bootstrap", "sign", "wilcoxon"}
        Interval of the paired differences. The t interval needs 3 seeds, the exact sign-test and
        signed-rank intervals (no assumption on the shape, or only symmetry) 6, the bootstrap 8.
    confidence : float
        Level of the two-sided interval.
    names : (str, str)
        What the two methods are called in the rule.
    """
    difference, words = _difference(a, b, paired, method, confidence, names)
    return _one_sided(difference, words, "above", margin)


def less(
    a: Any,
    b: Any,
    margin: float = 0.0,
    *,
    paired: bool = True,
    method: Method = "t",
    confidence: float = 0.95,
    names: tuple[str, str] = ("the first", "the second"),
) -> Rule:
    """``b − a`` exceeds ``margin``; see :func:`greater`."""
    return greater(
        b, a, margin, paired=paired, method=method, confidence=confidence, names=names[::-1]
    )


def equivalent(
    a: Any,
    b: Any,
    margin: float,
    *,
    method: Method = "t",
    confidence: float = 0.95,
    names: tuple[str, str] = ("the first", "the second"),
) -> Rule:
    """``|a − b|`` stays within ``margin``: the two methods do not differ by anything that matters.

    See :func:`greater` for the parameters; ``margin`` is positive.
    """
    margin = _finite("margin", margin)
    if margin <= 0:
        raise ValueError(f"`margin` must be positive, got {margin!r}")
    (interval, effect, n), words = _difference(a, b, True, method, confidence, names)
    return Rule(
        f"{words} lies within ±{number(margin)}", interval, (-margin, margin), True, n, effect
    )


def at_least(
    values: Any,
    bound: float,
    *,
    method: Method = "t",
    confidence: float = 0.95,
    name: str = "the measured value",
) -> Rule:
    """The quantity is ``bound`` or more.

    Parameters
    ----------
    values : array of shape (seeds,)
        One measurement for each seed.
    bound : float
        The value that must be reached.
    method, confidence
        As for :func:`greater`.
    name : str
        What the quantity is called in the rule.
    """
    single, words = _single(values, method, confidence, name)
    return _one_sided(single, words, "at least", bound)


def at_most(
    values: Any,
    bound: float,
    *,
    method: Method = "t",
    confidence: float = 0.95,
    name: str = "the measured value",
) -> Rule:
    """The quantity is ``bound`` or less; see :func:`at_least`."""
    single, words = _single(values, method, confidence, name)
    return _one_sided(single, words, "at most", bound)


def within(
    values: Any,
    low: float,
    high: float,
    *,
    method: Method = "t",
    confidence: float = 0.95,
    name: str = "the measured value",
) -> Rule:
    """The quantity lies from ``low`` to ``high``; see :func:`at_least`."""
    low, high = _finite("low", low), _finite("high", high)
    if not low < high:
        raise ValueError(f"`low` must be less than `high`, got {low} and {high}")
    (interval, effect, n), words = _single(values, method, confidence, name)
    words = f"{words} lies from {number(low)} to {number(high)}"
    return Rule(words, interval, (low, high), True, n, effect)


def proportion(
    successes: Any,
    trials: Any,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
    confidence: float = 0.95,
    name: str = "the proportion",
) -> Rule:
    """A proportion of successes in independent trials, by Wilson's interval.

    Parameters
    ----------
    successes, trials : array of shape (seeds,)
        Counts for each seed; they are pooled, which is right if a trial of one seed is as good
        as a trial of another. If seeds differ among themselves, use :func:`at_least` on the
        proportions of the seeds instead.
    at_least, at_most : float
        One bound of the two, or both.
    """
    hits, tries = np.atleast_1d(np.asarray(successes)), np.atleast_1d(np.asarray(trials))
    if hits.dtype.kind not in "iu" or tries.dtype.kind not in "iu":
        raise TypeError("`successes` and `trials` must hold integers")
    tries = np.broadcast_to(tries, hits.shape) if tries.size == 1 else tries
    if hits.ndim != 1 or hits.shape != tries.shape:
        raise ValueError(
            f"`successes` and `trials` must be one row each, got {hits.shape}, {tries.shape}"
        )
    if np.any(hits < 0) or np.any(hits > tries) or np.any(tries < 1):
        raise ValueError("`successes` must lie between 0 and `trials`, which must be at least 1")
    if at_least is None and at_most is None:
        raise ValueError("give `at_least`, `at_most` or both")
    low = 0.0 if at_least is None else _finite("at_least", at_least)
    high = 1.0 if at_most is None else _finite("at_most", at_most)
    if not 0 <= low < high <= 1:
        raise ValueError(f"the bounds must satisfy 0 ≤ at_least < at_most ≤ 1, got {low}, {high}")
    level = _level(confidence)
    interval = wilson_interval(int(hits.sum()), int(tries.sum()), confidence)
    stated = f"from {number(low)} to {number(high)}"
    if at_most is None:
        stated = f"at least {number(low)}"
    elif at_least is None:
        stated = f"at most {number(high)}"
    words = f"the {level} Wilson interval of {name} over all trials lies {stated}"
    return Rule(words, interval, (low, high), True, len(hits))


def slopes(x: Any, rows: Any) -> np.ndarray:
    """Return each seed's least-squares slope, to be compared by any of the rules.

    Parameters
    ----------
    x : array of shape (m,)
        What was varied, say log of the length.
    rows : array of shape (seeds, m)
        Measurements; one row for each seed.

    Returns
    -------
    array of shape (seeds,)
    """
    x, rows = np.asarray(x, dtype=float), np.asarray(rows, dtype=float)
    if x.ndim != 1 or rows.ndim != 2 or rows.shape[1] != len(x) or len(x) < 2:
        raise ValueError(
            f"`x` must have shape (m,) with m ≥ 2 and `rows` (seeds, m), got {x.shape} "
            f"and {rows.shape}"
        )
    if not (np.all(np.isfinite(x)) and np.all(np.isfinite(rows))):
        raise ValueError("`x` and `rows` must be finite")
    centred = x - x.mean()
    if not np.any(centred):
        raise ValueError("`x` must take at least two different values")
    return rows @ centred / (centred @ centred)


def _difference(
    a: Any,
    b: Any,
    paired: bool,
    method: Method,
    confidence: float,
    names: tuple[str, str],
) -> tuple[tuple[Interval, str, int], str]:
    """Return interval, effect and number of seeds of ``a − b``, and the rule's first words."""
    first, second = _values("a", a), _values("b", b)
    level, (one, other) = _level(confidence), names
    if not paired:
        if method != "t":
            raise ValueError(f"`method` must be 't' without pairing, got {method!r}")
        if len(first) != len(second):
            raise ValueError("`a` and `b` must have one measurement for each seed")
        interval, pooled = welch_interval(first, second, confidence)
        effect = _effect(interval.estimate, pooled, "pooled standard deviations")
        what = f"the {level} Welch interval of {one} minus {other}"
        return (interval, effect, len(first)), what
    if len(first) != len(second):
        raise ValueError(
            f"`a` and `b` must be paired seed by seed, got {len(first)} and {len(second)} values"
        )
    gaps = first - second
    interval = interval_of(gaps, method, confidence)
    effect = _effect(float(gaps.mean()), spread(gaps), "standard deviations of the differences")
    return (interval, effect, len(gaps)), (
        f"the {level} {METHODS[method]} of the paired differences, {one} minus {other},"
    )


def _single(
    values: Any, method: Method, confidence: float, name: str
) -> tuple[tuple[Interval, str, int], str]:
    row = _values("values", values)
    interval = interval_of(row, method, confidence)
    words = f"the {_level(confidence)} {METHODS[method]} of {name} over seeds"
    return (interval, "", len(row)), words


def _one_sided(
    found: tuple[Interval, str, int],
    words: str,
    relation: Literal["above", "at least", "at most"],
    bound: float,
) -> Rule:
    interval, effect, n = found
    bound = _finite("margin" if relation == "above" else "bound", bound)
    allowed = (-np.inf, bound) if relation == "at most" else (bound, np.inf)
    words = f"{words} lies {relation} {number(bound)}"
    return Rule(words, interval, allowed, relation != "above", n, effect)


def _effect(difference: float, spread: float, unit: str) -> str:
    """Return the standardised effect (Cohen's d) in words."""
    if spread == 0:
        return "the seeds do not vary, so there is no standardised effect"
    return f"{difference / spread:.3g} {unit}"


# Validation ---------------------------------------------------------------------------------


def _values(name: str, values: Any) -> np.ndarray:
    row = np.asarray(values, dtype=float)
    if row.ndim != 1:
        raise ValueError(f"`{name}` must have shape (seeds,), got {row.shape}")
    if len(row) < 3:
        raise ValueError(f"`{name}` must hold at least 3 seeds' measurements, got {len(row)}")
    if not np.all(np.isfinite(row)):
        raise ValueError(f"`{name}` must be finite, got {row}")
    return row


def _seeds(seeds: Sequence[int]) -> tuple[int, ...]:
    numbers = tuple(int(seed) for seed in seeds)
    if len(numbers) < 3:
        raise ValueError(f"`seeds` must name at least 3 seeds, got {len(numbers)}")
    if len(set(numbers)) < len(numbers):
        raise ValueError(f"`seeds` must be different from one another, got {list(numbers)}")
    return numbers


def _finite(name: str, value: float) -> float:
    if not isinstance(value, (int, float, np.number)) or not np.isfinite(value):
        raise ValueError(f"`{name}` must be a finite number, got {value!r}")
    return float(value)


def _level(confidence: float) -> str:
    if not isinstance(confidence, (int, float)) or not 0.5 <= confidence < 1:
        raise ValueError(f"`confidence` must lie in [0.5, 1), got {confidence!r}")
    return f"{number(100 * confidence)} %"
