"""The bound of the VAE against closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from lib.generative.vae import VAE, kl_to_standard_normal


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def small(shape=(2, 3), latent: int = 2, width: int = 8) -> VAE:
    return VAE(shape, latent=latent, width=width, generator=seeded()).double()


def test_the_divergence_is_that_of_torch():
    mean, log_variance = torch.randn(2, 5, 4, generator=seeded(), dtype=torch.float64)
    q = Normal(mean, (0.5 * log_variance).exp())
    expected = kl_divergence(q, Normal(torch.zeros(5, 4), torch.ones(5, 4))).sum(1)
    torch.testing.assert_close(kl_to_standard_normal(mean, log_variance), expected)
    assert kl_to_standard_normal(torch.zeros(3), torch.zeros(3)) == 0.0


def test_the_bound_is_its_definition_with_the_same_draw_of_z():
    model = small()
    x = 2.0 * torch.rand(4, 2, 3, generator=seeded(1), dtype=torch.float64) - 1.0
    mean, log_variance = model.posterior(x)
    noise = torch.randn(4, 2, generator=seeded(2), dtype=torch.float64)
    q = Normal(mean, (0.5 * log_variance).exp())
    z = mean + q.scale * noise
    likelihood = Normal(model.decode(z), model.log_sigma.exp()).log_prob(x).flatten(1).sum(1)
    prior = Normal(torch.zeros_like(mean), torch.ones_like(mean))
    expected = likelihood - kl_divergence(q, prior).sum(1)
    torch.testing.assert_close(model.elbo(x, seeded(2)), expected)


class Linear(VAE):
    """Decoder μ(z) = W z: then x is normal, and the exact posterior is known."""

    def decode_rows(self, z):
        return z @ self.weight.T


def test_with_the_exact_posterior_the_bound_is_the_log_density_for_every_draw():
    model = Linear((3,), latent=1, width=4, generator=seeded()).double()
    model.weight = torch.tensor([[0.6], [-1.0], [0.3]], dtype=torch.float64)
    w, variance = model.weight[:, 0], model.log_sigma.exp().item() ** 2
    x = torch.randn(6, 3, generator=seeded(1), dtype=torch.float64)
    precision = 1.0 + (w @ w).item() / variance
    model.posterior = lambda x: (
        (x @ w)[:, None] / variance / precision,
        torch.full((len(x), 1), -math.log(precision), dtype=torch.float64),
    )
    covariance = torch.outer(w, w) + variance * torch.eye(3, dtype=torch.float64)
    exact = MultivariateNormal(torch.zeros(3, dtype=torch.float64), covariance).log_prob(x)
    # the draws of z differ, their mean is the bound and can't exceed log p; here it is equal
    many = torch.stack([model.elbo(x, seeded(seed)) for seed in range(4000)]).detach()
    error = many.std(0) / math.sqrt(len(many))
    assert ((many.mean(0) - exact).abs() < 4.5 * error).all()


def test_samples_are_means_and_with_noise_spread_by_sigma_around_them():
    model = small().finished()
    mean = model.sample(3000, seeded())
    noisy = model.sample(3000, seeded(), noise=True)
    assert mean.abs().max() < 1.0
    sigma = model.log_sigma.exp().item()
    assert (noisy - mean).std().item() == pytest.approx(sigma, rel=0.03)
    z = torch.randn(3000, 2, generator=seeded(), dtype=torch.float64)
    torch.testing.assert_close(mean, model.decode(z))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda m: m.elbo(np.zeros((2, 6)), seeded()), ValueError, r"`x` .* \(N, 2, 3\), got \(2,"),
        (lambda m: m.elbo(np.zeros((0, 2, 3)), seeded()), ValueError, r"`x` .* got \(0, 2, 3\)"),
        (lambda m: m.elbo(np.full((1, 2, 3), np.nan), seeded()), ValueError, "`x` must be finite"),
        (lambda m: m.elbo(torch.full((1, 2, 3), torch.inf), seeded()), ValueError, "`x` .* finite"),
        (lambda m: m.elbo(np.zeros((1, 2, 3)), 0), TypeError, "`generator` must be"),
        (lambda m: m.posterior("abc"), TypeError, "`x` must hold real numbers"),
        (lambda m: m.decode(np.zeros((2, 3))), ValueError, r"`z` must have shape \(N, 2\), got"),
        (
            lambda m: VAE((0,), latent=1, width=1, generator=seeded()),
            ValueError,
            "`shape` must be at least 1, got 0",
        ),
    ],
)
def test_bad_input_is_an_error_that_names_it(call, error, message):
    with pytest.raises(error, match=message):
        call(small())
