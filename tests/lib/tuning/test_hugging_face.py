"""A ladder beside models of the `transformers` package, made here, untrained, without network."""

from __future__ import annotations

import copy
import socket

import peft
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import (
    AlbertConfig,
    AlbertModel,
    BertConfig,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    GPT2Config,
    GPT2LMHeadModel,
    GPT2Model,
    LlamaConfig,
    LlamaModel,
    PreTrainedModel,
    RobertaConfig,
    RobertaModel,
    T5Config,
    T5EncoderModel,
    T5Model,
)

from lib.tuning.costs import activation_memory, count_operations
from lib.tuning.ladder import LadderSideNetwork, NoRungs
from lib.tuning.methods import lora, trainable_count

WORDS, WIDTH, LAYERS, HEADS = 60, 32, 4, 2

ENCODER = {
    "vocab_size": WORDS,
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "intermediate_size": 4 * WIDTH,
    "max_position_embeddings": 40,
}
GPT2 = {"vocab_size": WORDS, "n_embd": WIDTH, "n_layer": LAYERS, "n_head": HEADS, "n_positions": 40}
DISTIL = {"vocab_size": WORDS, "dim": WIDTH, "n_layers": LAYERS, "n_heads": HEADS, "hidden_dim": 64}
T5 = {"vocab_size": WORDS, "d_model": WIDTH, "d_kv": 16, "num_layers": LAYERS, "num_heads": HEADS}

MODELS = {  # and the name of their stack of blocks
    "bert": (lambda: BertModel(BertConfig(**ENCODER)), "encoder.layer"),
    "roberta": (lambda: RobertaModel(RobertaConfig(**ENCODER)), "encoder.layer"),
    "gpt2": (lambda: GPT2Model(GPT2Config(**GPT2)), "h"),
    "gpt2 with its output layer": (lambda: GPT2LMHeadModel(GPT2Config(**GPT2)), "transformer.h"),
    "llama": (
        lambda: LlamaModel(LlamaConfig(**ENCODER, num_key_value_heads=1, pad_token_id=0)),
        "layers",
    ),
    "distilbert": (lambda: DistilBertModel(DistilBertConfig(**DISTIL)), "transformer.layer"),
    "t5": (lambda: T5EncoderModel(T5Config(**T5)), "encoder.block"),
}


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise OSError("these tests need no network")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def draw(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def made(name: str) -> tuple[PreTrainedModel, str]:
    """A model in training mode, and the name of its stack."""
    make, blocks = MODELS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # transformers draws from the global generator
        return make().train(), blocks


def words(batch: int, n: int, seed: int = 0) -> Tensor:
    return torch.randint(1, WORDS, (batch, n), generator=draw(seed))


def beside(name: str, kind: type = LadderSideNetwork, **settings):
    model, blocks = made(name)
    settings = {"width": WIDTH, "reduction": 4, "generator": draw(1)} | settings
    return model, kind(model, blocks, **settings)


@pytest.mark.parametrize("name", MODELS)
def test_the_states_are_those_that_the_model_reports(name):
    model, side = beside(name, rungs=(0, 2))
    states = side.states(input_ids=words(3, 7))
    assert [h.shape for h in states] == [(3, 7, WIDTH)] * 3
    assert not any(h.requires_grad for h in states)
    model.eval()
    theirs = model(input_ids=words(3, 7), output_hidden_states=True).hidden_states
    assert len(theirs) == LAYERS + 1
    for got, k in zip(states, (0, 1, 3), strict=True):
        torch.testing.assert_close(got, theirs[k].detach())


@pytest.mark.parametrize("name", MODELS)
def test_only_the_ladder_gets_gradients(name):
    model, side = beside(name)
    readout = nn.Linear(side.width, 2)
    scores = readout(side(input_ids=words(4, 6)).mean(1))
    F.cross_entropy(scores, torch.tensor([0, 1, 1, 0])).backward()
    assert all(p.grad is None for p in model.parameters())
    assert all(p.requires_grad for p in model.parameters())  # it was not frozen to get there
    assert all(p.grad is not None and p.grad.isfinite().all() for p in side.parameters())
    assert not {id(p) for p in side.parameters()} & {id(p) for p in model.parameters()}


@pytest.mark.parametrize("name", ["bert", "roberta", "gpt2"])
def test_the_trunks_dropout_is_off_in_its_training_mode(name):
    model, side = beside(name)
    tokens = words(2, 9)
    twice = [model(input_ids=tokens).last_hidden_state for _ in range(2)]
    assert not torch.equal(*twice)  # there is dropout to be switched off
    for first, again in zip(side.states(tokens), side.states(tokens), strict=True):
        assert torch.equal(first, again)
    assert all(part.training for part in model.modules())


@pytest.mark.parametrize("name", ["bert", "gpt2"])
@pytest.mark.parametrize("form", ["gated", "additive"])
def test_stored_states_train_the_same_ladder(name, form):
    model, live = beside(name, form=form, normalise=True)
    stored = copy.deepcopy(live)
    tokens, goal = words(4, 8), torch.randn(4, 8, live.width, generator=draw(2))
    states = live.states(input_ids=tokens)
    before = [p.clone() for p in model.parameters()]
    losses = []
    for side, run in (
        (live, lambda: live(input_ids=tokens)),
        (stored, lambda: stored.from_states(states)),
    ):
        steps = torch.optim.AdamW(side.parameters(), lr=0.01)
        for _ in range(5):
            loss = F.mse_loss(run(), goal)
            steps.zero_grad()
            loss.backward()
            steps.step()
            losses.append(loss.item())
    assert losses[:5] == losses[5:]
    assert losses[4] < losses[0]
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_a_mask_of_padding_reaches_the_trunk():
    _, side = beside("bert")
    short = words(1, 5)
    padded = F.pad(short, (0, 3))
    mask = (padded != 0).long()
    alone = side.states(input_ids=short)
    masked = side.states(input_ids=padded, attention_mask=mask)
    for h, wide in zip(alone, masked, strict=True):
        torch.testing.assert_close(wide[:, :5], h, atol=1e-5, rtol=1e-4)


PADDED = pytest.mark.parametrize(("name", "side"), [("bert", 1), ("llama", 1), ("llama", -1)])


def padding(tokens: Tensor, count: int, side: int) -> tuple[Tensor, Tensor, slice]:
    """Tokens with padding on the right (1) or the left (-1), the mask, the places of the tokens."""
    padded = F.pad(tokens, (0, count) if side == 1 else (count, 0))
    first = 0 if side == 1 else count
    return padded, (padded != 0).long(), slice(first, first + tokens.shape[1])


@PADDED
@pytest.mark.parametrize("form", ["gated", "additive"])
@pytest.mark.parametrize("kind", [LadderSideNetwork, NoRungs])
def test_padding_changes_nothing_for_the_tokens(name, side, form, kind):
    _, ladder = beside(name, kind, form=form)
    short = words(1, 5)
    padded, mask, here = padding(short, 3, side)
    both = torch.cat([padded, words(1, 8, seed=1)])  # with a row that has no padding
    masks = torch.cat([mask, torch.ones_like(mask)])
    alone, full = ladder(input_ids=short), ladder(input_ids=both[1:])
    for given in (masks, masks.bool(), masks.float()):
        beside_others = ladder(input_ids=both, attention_mask=given)
        torch.testing.assert_close(beside_others[:1, here], alone, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(beside_others[1:], full, atol=1e-5, rtol=1e-4)
    states = ladder.states(input_ids=both, attention_mask=masks)
    assert torch.equal(ladder.from_states(states, masks), ladder(both, masks))
    unmasked = ladder.from_states(states)[:1, here]
    assert (unmasked - alone).abs().max() > 0.01  # what the mask is for


def test_a_mask_that_hides_nothing_is_none():
    _, side = beside("bert", initial="copied", reduction=1)
    side.eval()  # the copies have BERT's dropout
    tokens = words(2, 6)
    assert torch.equal(side(tokens, torch.ones_like(tokens)), side(tokens))


@pytest.mark.parametrize(
    ("mask", "error", "message"),
    [
        ([[1, 1, 0]] * 2, TypeError, "`attention_mask` must be a tensor, got list"),
        (torch.ones(2, 4), ValueError, r"\(B, n\) = \(2, 3\) .* got \(2, 4\)"),
        (torch.ones(2, 1, 1, 3), ValueError, r"\(B, n\) = \(2, 3\) .* got \(2, 1, 1, 3\)"),
        (torch.tensor([[1.0, 1.0, -1e9]] * 2), ValueError, "must be 1 at tokens and 0 at padding"),
        (torch.tensor([[1, 1, 0], [0, 0, 0]]), ValueError, "must leave each row a token"),
    ],
    ids=["no tensor", "other length", "four axes", "added to logits", "nothing left"],
)
def test_masks_that_cannot_be_meant(mask, error, message):
    _, side = beside("bert")
    states = side.states(words(2, 3))
    with pytest.raises(error, match=message):
        side.from_states(states, mask)


def test_copied_blocks_take_no_mask():
    _, side = beside("bert", initial="copied", reduction=1)
    with pytest.raises(ValueError, match='must hide nothing for initial="copied"'):
        side(words(1, 3), torch.tensor([[1, 1, 0]]))


def encoder_decoder() -> T5Model:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return T5Model(T5Config(**T5, decoder_start_token_id=0)).eval()


@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_beside_a_decoder_it_is_the_decoders_mask_that_counts(part):
    model = encoder_decoder()
    side = LadderSideNetwork(
        model, f"{part}.block", width=WIDTH, reduction=4, generator=draw(1), rungs=(0, 2)
    )
    read, written = words(2, 6), words(2, 6, seed=1)
    masks = {"encoder": torch.ones(2, 6).long(), "decoder": torch.ones(2, 6).long()}
    masks["encoder"][0, 3:] = masks["decoder"][1, 4:] = 0
    given = {
        "input_ids": read,
        "attention_mask": masks["encoder"],
        "decoder_input_ids": written,
        "decoder_attention_mask": masks["decoder"],
    }
    states = side.states(**given)
    assert torch.equal(side(**given), side.from_states(states, masks[part]))
    assert not torch.allclose(side(**given), side.from_states(states))


class Wrapped(nn.Module):
    """A model behind arguments without names, as behind peft's or a compiler's wrappers."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *args, **kwargs):
        return self.model(*args, **kwargs)


def test_a_mask_without_a_name_is_not_overlooked():
    model, blocks = made("bert")
    side = LadderSideNetwork(
        Wrapped(model), f"model.{blocks}", width=WIDTH, reduction=4, generator=draw(1)
    )
    tokens, mask = words(2, 6), torch.ones(2, 6).long()
    mask[0, 3:] = 0
    by_name = side(tokens, attention_mask=mask)
    assert torch.equal(by_name, side.from_states(side.states(tokens, mask), mask))
    assert not torch.allclose(by_name, side(tokens))
    with pytest.raises(ValueError, match="hand over all but the first by name"):
        side(tokens, mask)


class Masked(nn.Module):
    """A model that calls its mask otherwise."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.Linear(WIDTH, WIDTH)])

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.blocks[0](x)


def test_a_mask_may_have_another_name():
    x, mask = torch.randn(2, 6, WIDTH, generator=draw()), torch.ones(2, 6).long()
    mask[0, 3:] = 0
    settings = {"width": WIDTH, "reduction": 4}
    side = LadderSideNetwork(Masked(), "blocks", generator=draw(1), mask="mask", **settings)
    expected = side.from_states(side.states(x), mask)
    assert torch.equal(side(x, mask), expected)
    assert torch.equal(side(x, mask=mask), expected)
    with pytest.raises(
        ValueError, match=r"`mask` must be an argument of `model`, .*\['x', 'mask'\]"
    ):
        LadderSideNetwork(Masked(), "blocks", generator=draw(1), mask="tokens", **settings)
    with pytest.raises(TypeError, match="`mask` must be the name of an argument"):
        LadderSideNetwork(Masked(), "blocks", generator=draw(1), mask=mask, **settings)


def test_a_block_that_serves_several_layers_is_refused():
    with torch.random.fork_rng(devices=[]):
        model = AlbertModel(AlbertConfig(**ENCODER, embedding_size=16, num_hidden_groups=1))
    side = LadderSideNetwork(
        model, "encoder.albert_layer_groups", width=WIDTH, reduction=4, generator=draw()
    )
    with pytest.raises(ValueError, match="each of its blocks once, block 0 ran again"):
        side(words(2, 5))


def test_copies_of_blocks_that_need_more_than_states_say_so():
    _, side = beside("llama", initial="copied", reduction=1)
    with pytest.raises(ValueError, match='must run on states alone for initial="copied"'):
        side(words(2, 5))


def test_copies_of_blocks_in_half_precision_are_in_single():
    model, blocks = made("bert")
    side = LadderSideNetwork(
        model.bfloat16(), blocks, width=WIDTH, reduction=1, generator=draw(), initial="copied"
    )
    assert {p.dtype for p in side.parameters()} == {torch.float32}
    assert side(words(2, 5)).isfinite().all()


def test_a_mask_keeps_no_table_of_all_pairs():
    model, side = beside("bert")
    tokens = words(2, 38)
    mask = torch.ones_like(tokens)
    mask[0, 20:] = 0
    without, masked = (
        activation_memory(lambda given=given: side(tokens, given).sum(), (side, model))
        for given in (None, mask)
    )
    assert masked - without < tokens.numel() * 4 * LAYERS * (tokens.shape[1] // 4)


@pytest.mark.parametrize("name", ["bert", "roberta"])
def test_a_ladder_keeps_less_and_walks_less_than_pefts_lora(name):
    model, side = beside(name, reduction=8)
    theirs = peft.get_peft_model(
        copy.deepcopy(model), peft.LoraConfig(r=8, target_modules=["query", "value"])
    )
    tokens = words(8, 32)

    def ladder() -> Tensor:
        return side(input_ids=tokens).sum()

    def low_rank() -> Tensor:
        return theirs(input_ids=tokens).last_hidden_state.sum()

    kept = activation_memory(ladder, (side, model)), activation_memory(low_rank, theirs)
    assert kept[0] < kept[1] / 2
    assert count_operations(ladder).backward < count_operations(low_rank).backward / 2


@pytest.mark.parametrize("name", ["bert", "roberta"])
@pytest.mark.parametrize("rank", [1, 8])
def test_pefts_lora_trains_as_many_numbers_as_the_formula_says(name, rank):
    model, _ = made(name)
    config = peft.LoraConfig(r=rank, target_modules=["query", "value"])
    theirs = peft.get_peft_model(copy.deepcopy(model), config)
    formula = 4 * LAYERS * rank * WIDTH
    assert theirs.get_nb_trainable_parameters()[0] == formula
    assert trainable_count(lora(model, rank, draw())) == formula


@pytest.mark.parametrize("rungs", [None, (1, 3)])
def test_a_ladder_trains_as_many_numbers_as_the_formula_says(rungs):
    _, side = beside("bert", rungs=rungs)
    count, d = len(side.rungs), WIDTH // 4
    blocks = count * (12 * d * d + 13 * d)
    assert trainable_count(side) == (count + 1) * WIDTH * d + blocks + count + 2 * d


def test_the_control_takes_the_same_model():
    model, side = beside("bert", NoRungs, rungs=(1, 3))
    (embedded,) = side.states(input_ids=words(2, 6))
    torch.testing.assert_close(
        embedded, model.eval().embeddings(input_ids=words(2, 6)).detach(), atol=1e-6, rtol=1e-5
    )
    assert side(input_ids=words(2, 6)).shape == (2, 6, WIDTH // 4)


def test_a_trunk_in_half_precision_serves_a_ladder_in_single():
    model, side = beside("bert")
    model.bfloat16()
    states = side.states(input_ids=words(2, 6))
    assert {h.dtype for h in states} == {torch.bfloat16}
    y = side.from_states(states)
    assert y.dtype == torch.float32
    assert torch.equal(y, side.from_states([h.float() for h in states]))
    assert torch.equal(y, side(input_ids=words(2, 6)))


def test_a_wrong_name_of_the_stack_is_refused():
    model, _ = made("bert")
    with pytest.raises(ValueError, match="`blocks` must name a part of `model`"):
        LadderSideNetwork(model, "encoder.layers", width=WIDTH, generator=draw())
    with pytest.raises(TypeError, match=r"`blocks` must be a torch\.nn\.ModuleList"):
        LadderSideNetwork(model, "encoder", width=WIDTH, generator=draw())
