"""Sentences as means of word vectors."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer

from lib.data.docstrings import words
from lib.embeddings import WordVectors

TABLE = WordVectors(("open", "file", "close"), np.array([[1.0, 0], [0, 2], [-1, 4]]))
TEXTS = ["Open the file", "close close open", "FileOpener opens file_close!"]


def test_a_sentence_is_the_mean_of_its_known_words():
    got = TABLE.encode(["Open the file!", "close, close, open"])
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, [[0.5, 1.0], [-1 / 3, 8 / 3]], rtol=1e-6)


def test_counts_are_those_of_scikit_learn():
    oracle = CountVectorizer(vocabulary=list(TABLE.vocabulary), analyzer=words)
    assert (TABLE.counts(TEXTS).toarray() == oracle.transform(TEXTS).toarray()).all()


def test_known_says_which_sentences_can_be_encoded():
    assert TABLE.known(["nothing here", "a file", "!"]).tolist() == [False, True, False]


def test_a_sentence_without_a_known_word_is_an_error_that_shows_it():
    with pytest.raises(ValueError, match="got 2 without one, such as 'nothing here'; leave out"):
        TABLE.encode(["a file", "nothing here", "!"])


def test_vectors_cannot_be_written_and_do_not_follow_the_callers_array():
    rows = np.ones((1, 2), dtype=np.float32)
    table = WordVectors(("a",), rows)
    rows[:] = 5.0
    assert table.vectors.max() == 1.0
    with pytest.raises(ValueError, match="read-only"):
        table.vectors[:] = 0.0


def test_a_table_shows_its_size():
    assert repr(TABLE) == "WordVectors(3 words, 2 dimensions)"


@pytest.mark.parametrize(
    ("vocabulary", "vectors", "error", "message"),
    [
        (("a", "b"), np.ones((3, 2)), ValueError, r"`vectors` must have shape \(2, d\)"),
        (("a",), np.ones(1), ValueError, r"`vectors` must have shape \(1, d\)"),
        (("a", "a"), np.ones((2, 2)), ValueError, "`vocabulary` must hold different words"),
        (("a",), [[np.nan]], ValueError, "`vectors` must be finite"),
        (("a",), [["x"]], TypeError, "`vectors` must hold real numbers"),
    ],
)
def test_tables_that_do_not_fit_are_an_error(vocabulary, vectors, error, message):
    with pytest.raises(error, match=message):
        WordVectors(vocabulary, vectors)


@pytest.mark.parametrize(
    ("sentences", "error", "message"),
    [
        ("open the file", TypeError, "`sentences` must be a sequence of strings, got str"),
        ([1, 2], TypeError, "`sentences` must be a sequence of strings, got list"),
        ([], ValueError, "`sentences` must hold at least one sentence, got none"),
    ],
)
def test_what_is_no_row_of_sentences_is_an_error(sentences, error, message):
    for call in (TABLE.encode, TABLE.known, TABLE.counts):
        with pytest.raises(error, match=message):
            call(sentences)
