"""What a check leaves behind: a failure that names the equation, or a record and its verdict."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from lib.book._publish import CHECK_MIME, LABEL, show, text


class CheckFailed(AssertionError):
    """The evidence for an equation failed; the message names the equation's label."""


class CannotFail(CheckFailed):
    """The check accepts a wrong formula as well, so that its passing would mean nothing."""


class SameRoute(CheckFailed):
    """Both sides are the same computation, so that their agreement would mean nothing."""


@dataclass(frozen=True)
class Subject:
    """The equation under test: its label, the kind of evidence, and which case if several."""

    label: str
    kind: str
    case: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.label, str) or not LABEL.fullmatch(self.label):
            raise ValueError(
                "`label` must be eq- followed by small letters, digits and dashes, "
                f"got {self.label!r}"
            )
        if not isinstance(self.case, str):
            raise TypeError(f"`case` must be a string, got {self.case!r}")

    @property
    def anchor(self) -> str:
        """The id of the verdict; the case tells several checks of one equation apart."""
        slug = re.sub(r"[^a-z0-9]+", "-", self.case.lower()).strip("-")
        return f"check-{self.label}" + (f"--{slug}" if slug else "")

    def fail(self, reason: str, error: type[CheckFailed] = CheckFailed) -> NoReturn:
        """Raise, naming the equation first."""
        case = f" ({self.case})" if self.case else ""
        raise error(f"{self.label}{case}, {self.kind} check: {reason}")


@dataclass(frozen=True)
class Record:
    """A passed check. It was shown when it was made, so a notebook shows it only once.

    Attributes
    ----------
    label, kind, case, anchor : str
        The equation, the kind of evidence, which case of several, and the id of the verdict.
    evidence : str
        What was found, in words that hold on every machine.
    rejected : tuple of str
        The perturbations of the right-hand side that the check refused.
    facts : dict
        Numbers that the author chose, such as ``n`` and ``tolerance``.
    """

    label: str
    kind: str
    evidence: str
    rejected: tuple[str, ...] = ()
    case: str = ""
    anchor: str = ""
    shared: tuple[str, ...] = ()
    side: str = "right-hand side"
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def perturbation(self) -> str:
        """One sentence on what the check rejected; empty for a definition."""
        if not self.rejected:
            return ""
        if len(self.rejected) > 1:
            return f"{self.side}s {join(self.rejected)} were rejected"
        article = "an" if self.side[0] in "aeiou" else "a"
        return f"{article} {self.side} {self.rejected[0]} was rejected"

    @property
    def summary(self) -> str:
        """The verdict in plain words, without the label."""
        parts = [self.evidence, self.perturbation]
        if self.shared:
            parts.append(f"both sides use {join(self.shared)}")
        return "; ".join(part for part in parts if part)

    @property
    def data(self) -> dict[str, Any]:
        """What is stored: only facts that are the same on every machine."""
        return {
            "label": self.label,
            "kind": self.kind,
            "case": self.case,
            "anchor": self.anchor,
            "evidence": self.evidence,
            **self.facts,
            "perturbation": self.perturbation,
            "perturbation_rejected": True if self.rejected else None,
            "shared": list(self.shared),
        }

    @property
    def html(self) -> str:
        """The verdict as one line of HTML, linked to its equation."""
        kind = self.kind.replace("_", " ")
        case = f' <span class="book-check-case">{text(self.case)}</span>' if self.case else ""
        return (
            f'<div class="book-check" id="{self.anchor}" data-kind="{self.kind}">'
            '<span class="book-check-mark" aria-hidden="true">✓</span> '
            f'<strong class="book-check-kind">{kind}</strong>{case} '
            f'<span class="book-check-evidence">{text(self.summary)}</span> '
            f'<a class="book-check-link" href="#equation-{self.label}" '
            f'aria-label="equation {self.label}"><span aria-hidden="true">↑ </span>equation</a>'
            "</div>"
        )

    @property
    def plain(self) -> str:
        """The verdict as one line of text."""
        case = f" ({self.case})" if self.case else ""
        return f"✓ {self.label}{case} · {self.kind.replace('_', ' ')}: {self.summary}"

    @property
    def bundle(self) -> dict[str, Any]:
        """The mime bundle that a notebook shows and stores."""
        return {CHECK_MIME: self.data, "text/html": self.html, "text/plain": self.plain}

    def _ipython_display_(self) -> None:
        """Show nothing: the verdict was shown when the check passed."""


def conclude(
    subject: Subject,
    evidence: str,
    rejected: Sequence[str] = (),
    *,
    shared: Iterable[str] = (),
    side: str = "right-hand side",
    **facts: Any,
) -> Record:
    """Make the record of a passed check and show its verdict."""
    record = Record(
        label=subject.label,
        kind=subject.kind,
        evidence=evidence,
        rejected=tuple(rejected),
        case=subject.case,
        anchor=subject.anchor,
        shared=tuple(shared),
        side=side,
        facts=facts,
    )
    show(record.bundle)
    return record


def join(words: Sequence[str]) -> str:
    """Join words as a sentence does: "a, b and c"."""
    words = list(words)
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]])) if words else ""
