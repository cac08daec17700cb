"""An equation that names a quantity."""

from __future__ import annotations

from lib.book.verify._record import Record, Subject, conclude


def definition(label: str, names: str, *, case: str = "") -> Record:
    """Record that an equation only names a quantity, so that there is nothing to prove.

    Whether it really is a definition, and not a statement in disguise, is for a reader to judge;
    ``names`` therefore says what it names.

    Parameters
    ----------
    label : str
        The equation's label, ``eq-…``.
    names : str
        What the equation names, say "names the weights p_i".
    case : str
        Tells several checks of one equation apart.
    """
    subject = Subject(label, "definition", case)
    if not isinstance(names, str) or not names.strip():
        raise ValueError(f"`names` must say what the equation names, got {names!r}")
    return conclude(subject, names.strip())
