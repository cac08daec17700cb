"""Nearest codes, gradients that pass them, and codes that mean something."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree

from lib.generative.vqvae import VQVAE, nearest_code, straight_through, train_vqvae


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def small(**settings) -> VQVAE:
    settings = {
        "positions": 3,
        "codes": 5,
        "code_size": 2,
        "width": 8,
        "dropout": 0.0,
        "generator": seeded(),
    } | settings
    return VQVAE((2, 3), **settings).double()


def test_the_nearest_code_is_that_of_a_search_tree():
    z = torch.randn(20, 4, 3, generator=seeded(), dtype=torch.float64)
    codebook = torch.randn(11, 3, generator=seeded(1), dtype=torch.float64)
    expected = cKDTree(codebook.numpy()).query(z.numpy())[1]
    assert np.array_equal(nearest_code(z, codebook).numpy(), expected)


def test_straight_through_has_the_value_of_one_and_the_gradient_of_the_other():
    z, e = torch.randn(2, 4, 3, generator=seeded(), dtype=torch.float64).requires_grad_()
    out = straight_through(z, e)
    torch.testing.assert_close(out, e)
    weight = torch.randn(4, 3, generator=seeded(1), dtype=torch.float64)
    to_z, to_e = torch.autograd.grad((weight * out).sum(), (z, e), allow_unused=True)
    torch.testing.assert_close(to_z, weight)
    assert to_e is None


def test_each_term_of_the_loss_moves_what_it_should():
    model = small()
    rows = torch.rand(6, 6, generator=seeded(1), dtype=torch.float64)
    z = model._vectors(rows)
    e = model.codebook[nearest_code(z, model.codebook)]
    error = (model._decode(e) - rows).square().mean()
    gap = (z - e).square().mean()
    torch.testing.assert_close(model.loss(rows, 0.25), error + 1.25 * gap)

    by_codebook = torch.autograd.grad(model.loss(rows, 0.0), model.codebook)[0]
    expected = torch.autograd.grad((z.detach() - e).square().mean(), model.codebook)[0]
    torch.testing.assert_close(by_codebook, expected)  # reconstruction doesn't reach the codebook

    bias = model.encoder.leave.bias
    plain, held = (torch.autograd.grad(model.loss(rows, c), bias)[0] for c in (0.0, 1.0))
    pull = torch.autograd.grad((model._vectors(rows) - e.detach()).square().mean(), bias)[0]
    torch.testing.assert_close(held - plain, pull)
    assert plain.abs().max() > 0.0  # and the decoder's gradient does reach the encoder


def test_decoding_codes_reads_the_codebook():
    model = small().finished()
    x = torch.rand(4, 2, 3, generator=seeded(1), dtype=torch.float64)
    codes = model.encode(x)
    assert codes.shape == (4, 3)
    assert codes.dtype == torch.int64
    direct = model.decoder(model.codebook[codes].flatten(1)).tanh().view(4, 2, 3)
    torch.testing.assert_close(model.decode(codes), direct)


def test_few_prototypes_are_coded_drawn_and_decoded():
    """Six patterns in equal number: samples must be those, in about equal number."""
    patterns = np.sign(np.random.default_rng(0).standard_normal((6, 12)))
    data = np.repeat(patterns, 30, axis=0)
    model = train_vqvae(
        data,
        steps=800,
        generator=seeded(),
        positions=3,
        codes=8,
        code_size=4,
        width=48,
        dropout=0.0,
        learning_rate=1e-2,
    )
    rebuilt = model.decode(model.encode(data)).numpy()
    assert np.abs(rebuilt - data).mean() < 0.15
    drawn = np.sign(model.sample(600, seeded(1)).numpy())
    equal = (drawn[:, None] == patterns).all(2)  # (600, 6)
    assert equal.any(1).mean() > 0.9
    assert equal.sum(0).min() > 40


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.encode(np.zeros((2, 6))), r"`x` must have shape \(N, 2, 3\), got \(2, 6\)"),
        (lambda m: m.encode(np.full((1, 2, 3), np.nan)), "`x` must be finite, got nan"),
        (lambda m: m.decode(np.zeros((2, 4))), r"`codes` must have shape \(N, 3\), got \(2, 4\)"),
        (lambda m: m.decode([[0, 1, 5]]), r"`codes` must lie in \[0, 4\], got 5"),
        (lambda m: m.decode([[0, 1, -1]]), r"`codes` must lie in \[0, 4\], got -1"),
        (lambda m: m.decode([[0, 1, 0.5]]), r"`codes` must be whole numbers, got 0\.5"),
    ],
)
def test_bad_input_is_an_error_that_names_it(call, message):
    with pytest.raises(ValueError, match=message):
        call(small())
