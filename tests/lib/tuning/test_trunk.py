"""The trunk and its file: shapes, rotary positions, a round trip, damaged files."""

from __future__ import annotations

import doctest
import json
import math
import os
from dataclasses import asdict

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

from lib.tuning import trunk as module
from lib.tuning.corpus import MASK, SHAPES
from lib.tuning.trunk import (
    CHECKPOINT,
    Block,
    Trunk,
    TrunkConfig,
    load_trunk,
    save_trunk,
    stored_words,
    write_whole,
)

CONFIG = TrunkConfig(vocabulary=12, width=16, heads=2, layers=2, feed_forward=24)
WORDS = tuple(f"word{i}" for i in range(12))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def block_by_hand(block: Block, x: torch.Tensor) -> torch.Tensor:
    """The same block, place by place and head by head, with rotations as complex numbers."""
    rows, n, width = x.shape
    d = width // block.heads
    z = F.layer_norm(x, (width,), block.before_attention.weight, block.before_attention.bias)
    q, k, v = (
        F.linear(z, part.weight, part.bias) for part in (block.query, block.key, block.value)
    )
    turn = torch.tensor([10000.0 ** (-2 * t / d) for t in range(d // 2)], dtype=x.dtype)
    mixed = torch.zeros_like(x)
    for b in range(rows):
        for h in range(block.heads):
            mine = slice(h * d, (h + 1) * d)
            a, c = (torch.view_as_complex(p[b, :, mine].reshape(n, -1, 2)) for p in (q, k))
            scores = torch.empty(n, n, dtype=x.dtype)
            for i in range(n):
                for j in range(n):
                    phase = torch.polar(torch.ones_like(turn), (i - j) * turn)
                    scores[i, j] = (a[i] * c[j].conj() * phase).real.sum() / math.sqrt(d)
            mixed[b, :, mine] = scores.softmax(-1) @ v[b, :, mine]
    x = x + F.linear(mixed, block.out.weight, block.out.bias)
    z = F.layer_norm(x, (width,), block.before_feed.weight, block.before_feed.bias)
    up = F.linear(z, block.up.weight, block.up.bias)
    up = 0.5 * up * (1 + torch.erf(up / math.sqrt(2)))
    return x + F.linear(up, block.down.weight, block.down.bias)


# --- the network ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("batch", "length"), [(1, 1), (3, 5), (2, 40)])
def test_states_and_scores_have_their_shapes_and_are_finite(batch, length):
    trunk = Trunk(CONFIG, seeded())
    tokens = torch.randint(12, (batch, length), generator=seeded(1))
    hidden = trunk(tokens)
    assert hidden.shape == (batch, length, 16)
    assert trunk.logits(hidden).shape == (batch, length, 12)
    assert torch.isfinite(trunk.logits(hidden)).all()


def test_a_block_does_what_a_slow_one_does():
    block = Block(12, 2, 20, seeded(3)).double()
    for weight in block.parameters():  # biases and norms, too, that start as nothing
        weight.data += 0.3 * torch.randn(weight.shape, generator=seeded(4), dtype=torch.float64)
    x = torch.randn(2, 5, 12, generator=seeded(5), dtype=torch.float64)
    torch.testing.assert_close(block(x), block_by_hand(block, x), rtol=1e-6, atol=1e-6)


def test_attention_depends_on_offsets_only():
    # one key differs from the others; what a query gets from it depends on how far it is away
    block = Block(8, 1, 8, seeded()).double()
    ground, odd = torch.randn(2, 8, generator=seeded(1), dtype=torch.float64)
    rows = []
    for place in range(7):
        x = ground.repeat(1, 7, 1)
        x[0, place] = odd
        q, k = (block._split(part(x)) for part in (block.query, block.key))
        angles = module._angles(q)
        rows.append((module.rotate(q, angles) @ module.rotate(k, angles).mT)[0, 0])
    for query in range(6):
        for place in range(6):
            if place != query:
                torch.testing.assert_close(
                    rows[place][query, place], rows[place + 1][query + 1, place + 1]
                )


def test_order_matters():
    trunk = Trunk(CONFIG, seeded())
    one, other = trunk(torch.tensor([[1, 2, 3, 4]])), trunk(torch.tensor([[1, 3, 2, 4]]))
    assert (one[:, 0] - other[:, 0]).abs().max() > 1e-3


def test_windows_do_not_see_each_other():
    trunk = Trunk(CONFIG, seeded())
    tokens = torch.randint(12, (4, 9), generator=seeded(2))
    together = trunk(tokens)
    alone = torch.cat([trunk(row[None]) for row in tokens])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)


def test_the_output_layer_is_the_embedding():
    trunk = Trunk(CONFIG, seeded())
    hidden = torch.randn(3, 16, generator=seeded(1))
    expected = hidden @ trunk.embedding.weight.T / 4
    torch.testing.assert_close(trunk.logits(hidden), expected)
    assert not [name for name, _ in trunk.named_parameters() if "readout" in name]


def test_a_generator_fixes_all_weights():
    one, same, other = Trunk(CONFIG, seeded()), Trunk(CONFIG, seeded()), Trunk(CONFIG, seeded(1))
    for name, weight in one.state_dict().items():
        assert torch.equal(weight, same.state_dict()[name])
    assert not torch.equal(one.embedding.weight, other.embedding.weight)


@given(
    st.integers(2, 40), st.integers(1, 3), st.integers(1, 3), st.integers(0, 2), st.integers(1, 20)
)
@settings(max_examples=25, deadline=None)
def test_the_number_of_parameters(vocabulary, half, heads, layers, feed):
    width = 2 * half * heads
    config = TrunkConfig(vocabulary, width, heads, layers + 1, feed)
    block = 4 * width * (width + 1) + 2 * width * feed + feed + width + 4 * width
    expected = vocabulary * width + (layers + 1) * block + 2 * width
    assert sum(p.numel() for p in Trunk(config, seeded()).parameters()) == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(vocabulary=0), "`vocabulary` must be at least 1, got 0"),
        (dict(layers=0), "`layers` must be at least 1, got 0"),
        (dict(width=15), "`width` must be a multiple of 2 \\* `heads` = 4"),
        (dict(width=18, heads=6), "`width` must be a multiple of 2 \\* `heads` = 12"),
        (dict(feed_forward=-1), "`feed_forward` must be at least 1"),
    ],
)
def test_impossible_sizes_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        TrunkConfig(**{**asdict(CONFIG), **change})


def test_sizes_that_are_no_whole_numbers_are_refused():
    with pytest.raises(TypeError, match=r"`heads` must be a whole number, got 2\.0"):
        TrunkConfig(12, 16, heads=2.0)
    with pytest.raises(TypeError, match="`config` must be a TrunkConfig, got dict"):
        Trunk(asdict(CONFIG), seeded())
    with pytest.raises(TypeError, match=r"`generator` must be a torch\.Generator"):
        Trunk(CONFIG, 0)
    with pytest.raises(ValueError, match="`width` must be a multiple of"):
        Block(10, 2, 4, seeded())


@pytest.mark.parametrize(
    ("tokens", "error", "message"),
    [
        (torch.tensor([[12]]), ValueError, "`tokens` must lie in 0 … 11, got 12"),
        (torch.tensor([[-1, 3]]), ValueError, "`tokens` must lie in 0 … 11, got -1"),
        (torch.tensor([1, 2]), ValueError, "`tokens` must have shape"),
        (torch.empty(0, 4, dtype=torch.int64), ValueError, "and not be empty"),
        (torch.tensor([[1.0]]), TypeError, "`tokens` must be of int64"),
        ([[1]], TypeError, "`tokens` must be a torch.Tensor"),
    ],
)
def test_what_are_no_windows_is_refused(tokens, error, message):
    with pytest.raises(error, match=message):
        Trunk(CONFIG, seeded())(tokens)


# --- the file -------------------------------------------------------------------------------------


@pytest.fixture
def stored(tmp_path):
    """A file with a small trunk."""
    path = tmp_path / "small.safetensors"
    save_trunk(Trunk(CONFIG, seeded()), WORDS, path)
    return path


def rewritten(path, *, about=None, **weights):
    """The file again, with some of its weights or its metadata replaced; None drops a weight."""
    with safe_open(path, framework="pt") as file:
        kept = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = file.metadata()
    kept = {name: w for name, w in {**kept, **weights}.items() if w is not None}
    save_file(kept, path, metadata if about is None else about)
    return path


def test_a_trunk_comes_back_rounded_to_half_precision(stored):
    trunk, back = Trunk(CONFIG, seeded()), load_trunk(stored)
    assert back.config == CONFIG
    assert stored_words(stored) == WORDS
    assert not back.training
    for name, weight in trunk.state_dict().items():
        assert torch.equal(back.state_dict()[name], weight.half().float())


def test_the_same_trunk_makes_the_same_file(stored, tmp_path):
    again = tmp_path / "again.safetensors"
    save_trunk(load_trunk(stored), WORDS, again)
    assert again.read_bytes() == stored.read_bytes()


def test_other_programs_can_read_the_file(stored):
    with safe_open(stored, framework="np") as file:
        about = json.loads(file.metadata()["trunk"])
        assert file.get_tensor("embedding.weight").dtype == "float16"
    assert about == {"config": asdict(CONFIG), "words": list(WORDS)}


def test_a_file_that_is_not_there(tmp_path):
    for read in (load_trunk, stored_words):
        with pytest.raises(FileNotFoundError, match=r"python -m lib.tuning.pretrain"):
            read(tmp_path / "none.safetensors")
        with pytest.raises(FileNotFoundError, match="no trunk at"):
            read(tmp_path)


@pytest.mark.parametrize("keep", [0, 5, 300, -1])
def test_a_file_that_was_cut_off(stored, keep):
    stored.write_bytes(stored.read_bytes()[:keep])
    with pytest.raises(ValueError, match="`path` must be a whole safetensors file"):
        load_trunk(stored)


def test_a_file_of_something_else(stored):
    stored.write_bytes(b"\x00\xff" * 500)
    with pytest.raises(ValueError, match="`path` must be a whole safetensors file"):
        load_trunk(stored)


@pytest.mark.parametrize(
    "about",
    [
        {"other": "x"},
        {"trunk": "no json"},
        {"trunk": "[1]"},
        {"trunk": json.dumps({"config": asdict(CONFIG)})},
        {"trunk": json.dumps({"config": {"width": 16}, "words": list(WORDS)})},
        {"trunk": json.dumps({"config": {**asdict(CONFIG), "width": 15}, "words": list(WORDS)})},
        {"trunk": json.dumps({"config": {**asdict(CONFIG), "depth": 2}, "words": list(WORDS)})},
    ],
)
def test_a_file_without_proper_settings(stored, about):
    with pytest.raises(ValueError, match="`path` must hold a trunk's settings and words"):
        load_trunk(rewritten(stored, about=about))


def test_a_file_with_too_few_words(stored):
    about = {"trunk": json.dumps({"config": asdict(CONFIG), "words": ["one"]})}
    with pytest.raises(ValueError, match="`path` must hold one word per token, 12, got 1"):
        stored_words(rewritten(stored, about=about))


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"norm.bias": None}, "lacks norm.bias"),
        ({"extra": torch.zeros(3)}, "should not hold extra"),
        ({"norm.bias": torch.zeros(17)}, r"norm.bias should have shape \(16,\), got \(17,\)"),
        ({"norm.bias": torch.full((16,), torch.nan)}, "must hold finite weights, norm.bias"),
        ({"norm.bias": torch.full((16,), torch.inf)}, "must hold finite weights, norm.bias"),
    ],
)
def test_a_file_with_wrong_weights(stored, weights, message):
    with pytest.raises(ValueError, match=message):
        load_trunk(rewritten(stored, **weights))


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e6])
def test_weights_that_half_precision_cannot_hold_are_not_written(stored, value):
    before = stored.read_bytes()
    trunk = Trunk(CONFIG, seeded())
    trunk.norm.weight.data[3] = value
    with pytest.raises(ValueError, match=r"`trunk` must be finite in half precision, norm\.weight"):
        save_trunk(trunk, WORDS, stored)
    assert stored.read_bytes() == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (WORDS[:-1], "`words` must be 12 strings, got 11"),
        ((*WORDS[:-1], "word0"), "`words` must be different strings"),
        (range(12), "`words` must be different strings"),
    ],
)
def test_words_that_do_not_fit_are_not_written(tmp_path, words, message):
    with pytest.raises(ValueError, match=message):
        save_trunk(Trunk(CONFIG, seeded()), words, tmp_path / "x.safetensors")
    assert not list(tmp_path.iterdir())


def test_only_a_trunk_is_written(tmp_path):
    with pytest.raises(TypeError, match="`trunk` must be a Trunk, got Linear"):
        save_trunk(torch.nn.Linear(2, 2), WORDS, tmp_path / "x.safetensors")


def test_writing_replaces_a_file_as_a_whole(tmp_path):
    path = tmp_path / "a.bin"
    write_whole(path, b"old")
    write_whole(path, b"new, and longer")
    assert path.read_bytes() == b"new, and longer"
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]
    assert os.stat(path).st_mode & 0o777 == 0o644


def test_an_interrupted_writing_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.bin"
    write_whole(path, b"old")

    def broken(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(module.os, "replace", broken)
    with pytest.raises(OSError, match="no space left"):
        write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]


# --- the file that comes with the book ------------------------------------------------------------


def test_the_trunk_that_comes_with_the_book():
    trunk, words = load_trunk(), stored_words()
    assert CHECKPOINT.stat().st_size <= 4_000_000
    assert trunk.config == TrunkConfig(vocabulary=len(words))
    assert words[0] == MASK
    assert {*SHAPES, "def", "self", "return", "("} <= set(words)


@pytest.mark.parametrize(
    ("before", "answer", "after"),
    [
        ("<out> <out> def <name>", "(", "self , name , value = None ) : <in> <str> <line>"),
        ("<line> if value is", "None", ": <in> return False <out> return value <out>"),
        ("<line> for i", "in", "range ( n ) : <in> x = <name> [ i ] <line> <name> . append ( x )"),
    ],
)
def test_it_knows_some_python(before, answer, after):
    words, trunk = stored_words(), load_trunk()
    text = [*before.split(), MASK, *after.split()]
    tokens = torch.tensor([[words.index(t) for t in text]])
    with torch.no_grad():
        scores = trunk.logits(trunk(tokens))[0, len(before.split())]
    assert words[int(scores.argmax())] == answer


def test_its_card_says_how_it_came_about():
    card = CHECKPOINT.with_suffix(".md").read_text(encoding="utf-8")
    assert f"{CHECKPOINT.stat().st_size:,} bytes" in card
    for part in ("Data", "Training", "Result", "Make it again", "Licence"):
        assert f"**{part}.**" in card


def test_doctests():
    assert doctest.testmod(module).failed == 0
