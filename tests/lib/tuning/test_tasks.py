"""The three tasks: what a target is, balance, no text on both sides, clear errors."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lib.data.stdlib_text import CorpusError
from lib.tuning import tasks as module
from lib.tuning.corpus import LENGTH, PARTS, SPECIAL, Corpus, Source, read_corpus
from lib.tuning.tasks import CHOICES, PACKAGES, TASKS, Task, make_task
from lib.tuning.training import _check_task
from lib.tuning.trunk import stored_words

OPENS = {"(": ")", "[": "]", "{": "}"}


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return read_corpus()


@pytest.fixture(scope="module")
def tasks(corpus) -> dict[str, Task]:
    return {name: make_task(name, corpus=corpus) for name in TASKS}


def halves(task: Task):
    return (("training", task.train), ("test", task.test))


def text_of(corpus: Corpus, part: str) -> str:
    """All tokens of a part as one string, to look windows up in."""
    return "|".join("," + ",".join(map(str, s.tokens)) + "," for s in corpus.part(part))


def in_text(window, text: str) -> bool:
    return "," + ",".join(map(str, window.tolist())) + "," in text


# --- all of them ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TASKS)
def test_a_task_is_what_fine_tuning_reads(tasks, name):
    task = tasks[name]
    _check_task(task)
    assert task.name == name
    for _, half in halves(task):
        assert half.tokens.shape == (1000, LENGTH)
        assert half.places.shape == half.targets.shape == (1000,)
        assert (half.places >= 0).all()
        assert (half.places < LENGTH).all()
        assert (half.targets < task.classes).all()


def test_heads_and_classes(tasks):
    assert [t.head for t in tasks.values()] == ["position", "point", "pooled"]
    assert [t.classes for t in tasks.values()] == [CHOICES, LENGTH, len(PACKAGES)]
    assert [len(t.labels) for t in tasks.values()] == [CHOICES, 0, len(PACKAGES)]


@pytest.mark.parametrize("name", TASKS)
def test_a_task_is_always_the_same(corpus, tasks, name):
    again = make_task(name, corpus=corpus)
    for half in ("train", "test"):
        for one, other in zip(getattr(tasks[name], half), getattr(again, half), strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize("name", ["cloze", "partner"])
def test_a_mask_hides_the_place_in_question_and_no_other(corpus, tasks, name):
    for _, half in halves(tasks[name]):
        masked = half.tokens == corpus.mask
        assert (masked.sum(1) == 1).all()
        assert torch.equal(masked.int().argmax(1), half.places)


@pytest.mark.parametrize("name", TASKS)
def test_windows_come_from_their_own_part(corpus, tasks, name):
    task = tasks[name]
    for part, half in halves(task):
        text = text_of(corpus, part)
        for i in range(0, 1000, 25):
            window = half.tokens[i].clone()
            if name == "cloze":
                window[half.places[i]] = corpus.words.index(task.labels[half.targets[i]])
            elif name == "partner":
                closing = corpus.words[window[half.targets[i]]]
                opening = next(a for a, b in OPENS.items() if b == closing)
                window[half.places[i]] = corpus.words.index(opening)
            assert in_text(window, text)


def test_no_file_is_in_two_parts(corpus):
    names = [s.name for part in PARTS for s in corpus.part(part)]
    assert len(names) == len(set(names))


def test_few_windows_of_the_test_half_are_in_the_training_half(tasks):
    for task in tasks.values():
        train = {tuple(w) for w in task.train.tokens.tolist()}
        assert sum(tuple(w) in train for w in task.test.tokens.tolist()) <= 5


@pytest.mark.parametrize("length", [24, 96])
@pytest.mark.parametrize("name", TASKS)
def test_other_lengths(corpus, name, length):
    task = make_task(name, train=40, test=20, length=length, corpus=corpus)
    assert task.train.tokens.shape == (40, length)
    assert task.test.tokens.shape == (20, length)
    assert task.classes == {"cloze": CHOICES, "partner": length, "package": 4}[name]


# --- each of them ---------------------------------------------------------------------------------


def test_cloze_is_balanced_among_common_words(corpus, tasks):
    task = tasks["cloze"]
    assert not set(task.labels) & set(SPECIAL)
    for _, half in halves(task):
        count = np.bincount(half.targets, minlength=CHOICES)
        assert count.max() - count.min() <= 1
        first = np.bincount(half.targets[:CHOICES], minlength=CHOICES)
        assert (first == 1).all()


def test_partner_points_at_the_bracket_that_a_parser_finds(corpus, tasks):
    for _, half in halves(tasks["partner"]):
        for tokens, place, target in zip(*(x.tolist() for x in half), strict=True):
            words = [corpus.words[t] for t in tokens]
            closing = words[target]
            stack = [closing]  # the closing brackets that are still to come
            for at in range(place + 1, LENGTH):
                if words[at] in OPENS:
                    stack.append(OPENS[words[at]])
                elif words[at] in OPENS.values():
                    assert words[at] == stack.pop()
                    if not stack:
                        break
            assert at == target


def test_no_simple_rule_finds_the_partner(corpus, tasks):
    for _, half in halves(tasks["partner"]):
        ranks = []
        for tokens, place, target in zip(*(x.tolist() for x in half), strict=True):
            between = [corpus.words[t] for t in tokens[place + 1 : target]]
            ranks.append(sum(word in OPENS.values() for word in between))
        assert min(ranks) == 1  # the first closing bracket is never the one
        assert np.mean(np.array(ranks) == 1) == 0.5
        distance = (half.targets - half.places).numpy()
        assert np.bincount(distance).max() < 0.15 * len(distance)
        assert np.bincount(half.targets).max() < 0.15 * len(distance)


def test_packages_are_balanced_and_right(corpus, tasks):
    task = tasks["package"]
    for part, half in halves(task):
        assert (np.bincount(half.targets) == 250).all()
        assert (half.places == 0).all()
        for k, name in enumerate(task.labels):
            mine = [s for s in corpus.part(part) if s.name.startswith(f"{name}/")]
            text = "|".join("," + ",".join(map(str, s.tokens)) + "," for s in mine)
            assert all(in_text(w, text) for w in half.tokens[half.targets == k][::10])


# --- what goes wrong ------------------------------------------------------------------------------


def small(*, without: str = "", tokens: int = 3000) -> Corpus:
    """A corpus of nested brackets and random names, a file for each package in each part."""
    rng = np.random.default_rng(0)
    words = (*SPECIAL, *"()[]", *(f"word{i}" for i in range(40)))
    line = [words.index(t) if t in words else -1 for t in "a(b[c])((d)[e]f)"]
    parts = []
    for _ in PARTS:
        files = []
        for package in PACKAGES:
            if package != without:
                names = rng.integers(len(SPECIAL) + 4, len(words), tokens)
                row = np.resize(line, tokens)
                row = np.where(row < 0, names, row)
                files.append(Source(f"{package}/a.py", row))
        parts.append(tuple(files))
    return Corpus(words, *parts)


@pytest.mark.parametrize("name", TASKS)
def test_another_corpus_in_words_of_its_own(name):
    task = make_task(name, train=20, test=10, corpus=small())
    _check_task(task)
    assert task.train.tokens.max() < len(small().words)


def test_a_missing_package_is_named():
    with pytest.raises(CorpusError, match="the training part has 0 examples of 'email'"):
        make_task("package", train=20, test=20, corpus=small(without="email"))


@pytest.mark.parametrize("name", TASKS)
def test_more_examples_than_there_are(name):
    with pytest.raises(CorpusError, match=r"the test part has .* are wanted: ask for fewer"):
        make_task(name, train=8, test=10**6, corpus=small())


def test_files_too_short_for_a_window():
    with pytest.raises(CorpusError, match="no file of the training part holds 64 tokens"):
        make_task("cloze", corpus=small(tokens=63))


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        ("clozes", {}, ValueError, '`name` must be one of "cloze", "partner", "package"'),
        ("cloze", dict(train=0), ValueError, "`train` must be at least 1, got 0"),
        ("cloze", dict(test=2.5), TypeError, r"`test` must be a whole number, got 2\.5"),
        ("cloze", dict(length=1), ValueError, "`length` must be at least 2, got 1"),
        ("cloze", dict(corpus=3), TypeError, "`corpus` must be a .*Corpus, got int"),
        ("cloze", dict(corpus=small(), root="."), ValueError, "`root` must not be given together"),
    ],
)
def test_bad_arguments(name, options, error, message):
    with pytest.raises(error, match=message):
        make_task(name, **options)


def test_sources_that_are_not_there(tmp_path):
    with pytest.raises(CorpusError, match="no standard-library folder"):
        make_task("cloze", root=tmp_path / "nothing")


def test_the_words_of_the_trunk_are_used_unless_others_are_given(monkeypatch, corpus):
    asked = []

    def read(words, *, root):
        asked.append((words, root))
        return corpus

    monkeypatch.setattr(module, "read_corpus", read)
    task = make_task("package", train=8, test=4, root="somewhere")
    assert asked == [(stored_words(), "somewhere")]
    assert task.train.tokens.shape == (8, LENGTH)
