"""Labels are found where Sphinx finds them, and nowhere else."""

from __future__ import annotations

from pathlib import Path

import pytest

from lib.book._markdown import blocks

LABELLED = [
    "$$ x = 1 $$ (eq-x)",
    "$$x = 1$$ (eq-x)",
    "$$x = 1$$(eq-x)  ",
    "$$\nx = 1\n$$ (eq-x)",
    "text\n\n$$\nx = 1\n$$ (eq-x)\n\ntext",
    "# Heading\n$$x = 1\n$$ (eq-x)",
    "(a-target)=\n$$x = 1\n$$ (eq-x)",
    "```{note}\ntext\n```\n$$x = 1\n$$ (eq-x)",
    "$$ y $$\n$$x = 1\n$$ (eq-x)",
    "> $$\n> x = 1\n> $$ (eq-x)",
    "- $$ x = 1 $$ (eq-x)",
    "1. item\n\n   $$ x = 1 $$ (eq-x)",
    "```{math}\n:label: eq-x\nx = 1\n```",
    "```{math}\n:label: eq-x\n\nx = 1\n```",
    "```{math}\n---\nlabel: eq-x\n---\nx = 1\n```",
    "```{math}\n:name: eq-x\nx = 1\n```",
    "```{math} x = 1\n:label: eq-x\n```",
    ":::{math}\n:label: eq-x\nx = 1\n:::",
    "````{admonition} Title\n```{math}\n:label: eq-x\nx = 1\n```\n````",
    "```{admonition} Title\n:class: tip\n$$ x = 1 $$ (eq-x)\n```",
    "::::{note}\n:::{dropdown} More\n$$ x = 1 $$ (eq-x)\n:::\n::::",
]
SWALLOWED = [  # by the paragraph before, so that the label is lost
    "text\n$$x = 1\n$$ (eq-x)",
    "text\n$$ x = 1 $$ (eq-x)",
    "- item\n  $$ x = 1 $$ (eq-x)",
]
UNLABELLED = [
    "```\n$$ x $$ (eq-x)\n```",
    "```markdown\n$$ x $$ (eq-x)\n```",
    "~~~\n```{math}\n:label: eq-x\n```\n~~~",
    "```{code-block} markdown\n$$ x $$ (eq-x)\n```",
    "````{code}\n```{math}\n:label: eq-x\nx\n```\n````",
    "<!-- $$ x $$ (eq-x) -->",
    "<!--\n$$\nx\n$$ (eq-x)\n-->",
    "Write `$$ x $$ (eq-x)` to label it.",
    "The cost is $5 (eq-x).",
]


def labels(source: str) -> list[tuple[str, str]]:
    return [(b.label, b.text) for b in blocks(source) if b.kind == "equation"]


@pytest.mark.parametrize("source", LABELLED)
def test_a_labelled_equation_is_found(source: str) -> None:
    label, latex = labels(source)[-1]
    assert label == "eq-x"
    assert latex == "x = 1"


@pytest.mark.parametrize("source", UNLABELLED)
def test_what_is_code_or_comment_is_no_equation(source: str) -> None:
    assert labels(source) == []


@pytest.mark.parametrize("source", SWALLOWED)
def test_a_label_that_the_paragraph_before_swallows_is_called_lost(source: str) -> None:
    (equation,) = (b for b in blocks(source) if b.kind == "equation")
    assert equation.label == ""
    assert equation.broken == "the equation eq-x loses its label: it needs a blank line before"


def test_unlabelled_equations_have_an_empty_label() -> None:
    assert labels("$$ x $$\n\n$$\ny\n$$\n\nsee (eq-x)") == [("", "x"), ("", "y")]


def test_several_equations_keep_their_order() -> None:
    source = "$$ a $$ (eq-a)\n```{math}\n:label: eq-b\nb\n```\n$$\nc\n$$ (eq-c)"
    assert labels(source) == [("eq-a", "a"), ("eq-b", "b"), ("eq-c", "c")]


def test_headings_inside_code_and_directives_are_no_rooms() -> None:
    source = "# T\n```python\n# comment\n```\n## A ##\n:::{note}\ntext\n:::\n### B"
    found = [(b.level, b.text) for b in blocks(source) if b.kind == "heading"]
    assert found == [(1, "T"), (2, "A"), (3, "B")]


def test_a_directive_gives_its_options() -> None:
    (card,) = blocks(":::{card} Title\n:class-card: book-card-article\ntext\n:::")
    assert (card.name, card.text) == ("card", "Title")
    assert card.options == {"class-card": "book-card-article"}


def test_sphinx_finds_the_same_labels(tmp_path: Path) -> None:
    """Sphinx is the authority: every sample is a page of its own, with labels of its own."""
    testing = pytest.importorskip("sphinx.testing.util")
    source = tmp_path / "source"
    source.mkdir()
    (source / "conf.py").write_text(
        "extensions = ['myst_parser', 'sphinx_design']\n"
        "myst_enable_extensions = ['dollarmath', 'colon_fence']\n"
        # Sphinx's default is one dictionary per process, which other tests' extensions add to.
        "source_suffix = {'.rst': 'restructuredtext', '.md': 'markdown'}\n",
        encoding="utf-8",
    )
    (source / "index.md").write_text("# Index\n", encoding="utf-8")
    ours = set()
    for number, sample in enumerate(LABELLED + UNLABELLED + SWALLOWED):
        page = sample.replace("eq-x", f"eq-{number}")
        (source / f"page{number}.md").write_text(f"# Page\n\n{page}\n", encoding="utf-8")
        ours |= {label for label, _ in labels(page) if label}
    app = testing.SphinxTestApp("dummy", srcdir=source)
    try:
        app.build()
        theirs = set(app.env.get_domain("math").equations)
    finally:
        app.cleanup()
    assert ours == theirs == {f"eq-{number}" for number in range(len(LABELLED))}
