"""Public encoders, on a tiny one made here: pooling, padding, and what is said when none is had."""

from __future__ import annotations

import importlib
import sys
import time

import numpy as np
import pytest
import torch

from lib.embeddings import pretrained
from lib.embeddings.pretrained import POOLINGS, PretrainedError, pool, pretrained_vectors

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "open", "close", "the", "file", "##s", "a")
TEXTS = ["open the files", "a file", "close a file the file open the file", "unheard of"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    """A BERT of two layers with random weights, saved as a downloaded one would be."""
    transformers = pytest.importorskip("transformers")
    place = tmp_path_factory.mktemp("model")
    (place / "vocab.txt").write_text("\n".join(WORDS))
    vocabulary = {word: i for i, word in enumerate(WORDS)}
    transformers.BertTokenizer(vocab=vocabulary).save_pretrained(place)
    config = transformers.BertConfig(
        vocab_size=len(WORDS),
        hidden_size=8,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=32,
        initializer_range=0.5,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformers.BertModel(config).save_pretrained(place)
    return str(place)


def alone(folder: str, text: str, pooling: str) -> np.ndarray:
    """One sentence by itself, no padding: torch's own mean over its tokens."""
    transformers = importlib.import_module("transformers")
    model = transformers.BertModel.from_pretrained(folder).eval()
    pieces = {"files": ["file", "##s"]}
    tokens = [p for w in text.split() for p in pieces.get(w, [w])]
    ids = [WORDS.index(t) if t in WORDS else 1 for t in ["[CLS]", *tokens, "[SEP]"]]
    with torch.no_grad():
        states = model(torch.tensor([ids]), output_hidden_states=True).hidden_states
    if pooling == "cls":
        return states[3][0, 0].numpy()
    mean = 0.5 * (states[1] + states[3]) if pooling == "first-last" else states[3]
    return mean[0].mean(0).numpy()


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("batch", [1, 3, 32])
def test_each_sentence_has_the_vector_it_has_alone(folder, pooling, batch):
    got = pretrained_vectors(folder, TEXTS, pooling=pooling, batch=batch)
    expected = np.stack([alone(folder, text, pooling) for text in TEXTS])
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, atol=2e-6)


def test_a_long_sentence_is_cut(folder):
    long = " ".join(["open"] * 50)
    got = pretrained_vectors(folder, [long], max_length=10)
    np.testing.assert_allclose(
        got[0], alone(folder, " ".join(["open"] * 8), "first-last"), atol=2e-6
    )


def test_padding_has_no_part_in_a_mean():
    states = torch.randn(3, 2, 4, 5, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1]])
    got = pool(states.unbind(), mask, "first-last")
    torch.testing.assert_close(got[0], 0.5 * (states[1, 0, :2] + states[2, 0, :2]).mean(0))
    torch.testing.assert_close(pool(states.unbind(), mask, "last")[1], states[2, 1].mean(0))


def test_without_the_package_the_message_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match="pip install transformers"):
        pretrained_vectors("bert-base-uncased", TEXTS)


def test_without_a_network_the_message_comes_soon_and_says_what_to_do(monkeypatch, tmp_path):
    pytest.importorskip("transformers")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    started = time.monotonic()
    with pytest.raises(
        PretrainedError, match=r"'no-such/model-at-all' is not downloaded yet.*a folder"
    ):
        pretrained_vectors("no-such/model-at-all", TEXTS)
    assert time.monotonic() - started < 10.0


def test_offline_by_choice_asks_nobody(monkeypatch):
    def asked(*_, **__):
        raise AssertionError("the network was asked")

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("urllib.request.urlopen", asked)
    assert not pretrained._hub_answers()


@pytest.mark.parametrize(("answers", "local"), [(True, False), (False, True)])
def test_the_cache_alone_is_asked_only_when_the_hub_is_silent(monkeypatch, answers, local):
    transformers = pytest.importorskip("transformers")
    seen: list[bool] = []

    def load(name, *, local_files_only, **_):
        seen.append(local_files_only)
        raise OSError(name)

    monkeypatch.setattr(pretrained, "_hub_answers", lambda: answers)
    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", load)
    message = "neither a folder nor a model" if answers else "is not downloaded yet"
    with pytest.raises(PretrainedError, match=message):
        pretrained_vectors("some/model", TEXTS)
    assert seen == [local]


def test_a_folder_without_a_model_is_a_clear_error(tmp_path):
    pytest.importorskip("transformers")
    with pytest.raises(PretrainedError, match="holds no model that transformers can"):
        pretrained_vectors(tmp_path, TEXTS)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"pooling": "max"}, ValueError, '`pooling` must be one of "first-last", "last", "cls"'),
        ({"batch": 0}, ValueError, "`batch` must be at least 1"),
        ({"max_length": 2}, ValueError, "`max_length` must be at least 3"),
        ({"sentences": "text"}, TypeError, "`sentences` must be a sequence of strings, got str"),
        ({"sentences": []}, ValueError, "`sentences` must hold at least one sentence"),
        ({"name_or_path": 5}, TypeError, "`name_or_path` must be a name or a folder, got 5"),
        ({"name_or_path": ""}, TypeError, "`name_or_path` must be a name or a folder, got ''"),
    ],
)
def test_bad_input_is_an_error_that_names_it(change, error, message):
    with pytest.raises(error, match=message):
        pretrained_vectors(**{"name_or_path": "x", "sentences": TEXTS, **change})


def test_the_error_is_one_that_callers_can_catch():
    assert issubclass(PretrainedError, RuntimeError)
