"""Exact mixtures: SciPy, autograd and quadrature against the closed forms."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.special import logsumexp
from scipy.stats import kstest, multivariate_normal

from lib.diffusion import GaussianMixture, Schedule

SCHEDULE = Schedule.article(100)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def random_mixture(seed, d, components=3, kind="full"):
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(components, d, d)) / math.sqrt(d)
    covariances = {
        "full": root @ root.transpose(0, 2, 1) + 0.05 * np.eye(d),
        "each": rng.uniform(0.05, 1.0, components),
        "one": 0.3,
    }[kind]
    weights = rng.dirichlet(np.ones(components))
    return GaussianMixture(weights, 2.0 * rng.normal(size=(components, d)), covariances)


def states(n, d, seed=1):
    return 2.0 * torch.randn(n, d, generator=generator(seed), dtype=torch.float64)


mixtures = st.builds(
    random_mixture,
    st.integers(0, 10_000),
    st.integers(1, 4),
    st.integers(1, 4),
    st.sampled_from(["full", "each", "one"]),
)


def matrices(mixture):
    """Covariances as K matrices, whatever form they were handed in."""
    c = mixture.covariances.numpy()
    if c.ndim == 3:
        return c
    return np.broadcast_to(c, mixture.components)[:, None, None] * np.eye(mixture.dimension)


def plain_log_density(mixture, x):
    parts = [
        np.log(w) + multivariate_normal(m, c).logpdf(x.numpy()).reshape(len(x))
        for w, m, c in zip(
            mixture.weights.numpy(), mixture.means.numpy(), matrices(mixture), strict=True
        )
    ]
    return torch.tensor(logsumexp(parts, axis=0))


def close(a, b, rtol=1e-9, atol=1e-10):
    torch.testing.assert_close(
        torch.as_tensor(a), torch.as_tensor(b), rtol=rtol, atol=atol, check_dtype=False
    )


# --- the mixture itself ---------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(mixtures)
def test_log_density_is_scipys(mixture):
    x = states(7, mixture.dimension)
    close(mixture.log_density(x), plain_log_density(mixture, x))


@settings(max_examples=25, deadline=None)
@given(mixtures)
def test_the_score_is_the_gradient_of_the_log_density(mixture):
    x = states(7, mixture.dimension).requires_grad_()
    (gradient,) = torch.autograd.grad(mixture.log_density(x).sum(), x)
    close(mixture.score(x), gradient)


def test_the_score_is_differentiable():
    mixture = random_mixture(0, 2)
    assert torch.autograd.gradcheck(mixture.score, states(3, 2).requires_grad_())


@pytest.mark.parametrize("kind", ["full", "each", "one"])
def test_samples_have_the_mean_and_covariance(kind):
    mixture = random_mixture(3, 2, kind=kind)
    x = mixture.sample(40_000, generator())
    assert x.shape == (40_000, 2)
    assert x.dtype == torch.float64
    error = torch.sqrt(mixture.covariance().diagonal() / len(x))
    assert ((x.mean(0) - mixture.mean()).abs() < 4 * error).all()
    close(x.T.cov(), mixture.covariance(), rtol=0.05, atol=0.02)


def test_samples_in_one_dimension_follow_the_distribution():
    mixture = GaussianMixture([0.3, 0.7], [[-1.0], [2.0]], [0.2, 0.5])
    x = mixture.sample(4000, generator())

    def below(values):
        parts = torch.special.ndtr(
            (torch.tensor(values)[:, None] - mixture.means[:, 0]) / mixture.covariances.sqrt()
        )
        return (parts @ mixture.weights).numpy()

    assert kstest(x[:, 0].numpy(), below).pvalue > 1e-3
    same = mixture.sample(4000, generator())
    assert torch.equal(x, same)


def test_responsibilities_add_up_and_name_the_nearest():
    mixture = GaussianMixture([0.5, 0.5, 0.0], [[-5.0, 0.0], [5.0, 0.0], [0.0, 0.0]], 1.0)
    r = mixture.responsibilities(torch.tensor([[-5.0, 0.0], [5.0, 1.0], [0.0, 0.0]]))
    close(r.sum(1), torch.ones(3))
    close(r[2], [0.5, 0.5, 0.0])
    assert r[0, 0] > 1 - 1e-9
    assert r[1, 1] > 1 - 1e-9


@pytest.mark.parametrize("far", [1e3, 1e8, 1e100])
def test_far_away_nothing_overflows(far):
    mixture = random_mixture(2, 2)
    x = torch.tensor([[far, -far]], dtype=torch.float64)
    assert torch.isfinite(mixture.log_density(x)).all()
    assert torch.isfinite(mixture.score(x)).all()
    close(mixture.responsibilities(x).sum(), 1.0)
    eps = mixture.noise_predictor(SCHEDULE)
    for t in (1e-3, 1, 100):
        assert torch.isfinite(eps(x, torch.tensor([t]))).all()


def test_weights_in_single_precision_are_taken_as_meant():
    weights = torch.tensor([0.1] * 9 + [0.1], dtype=torch.float32)
    mixture = GaussianMixture(weights, torch.zeros(10, 1), 1.0)
    close(mixture.weights.sum(), 1.0, atol=1e-15)


def test_handed_in_arrays_are_copied():
    means = torch.zeros(1, 2, dtype=torch.float64)
    mixture = GaussianMixture([1.0], means, 1.0)
    means += 1
    assert not mixture.means.any()
    with pytest.raises(AttributeError):
        mixture.means = means
    assert repr(mixture) == "GaussianMixture(components=1, dimension=2)"


# --- under noise ----------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(mixtures, st.floats(0.01, 1), st.floats(0.05, 2))
def test_noise_scales_means_and_adds_variance(mixture, a, b):
    noised = mixture.noised(a, b)
    by_hand = GaussianMixture(
        mixture.weights,
        a * mixture.means,
        a**2 * matrices(mixture) + b**2 * np.eye(mixture.dimension),
    )
    x = states(5, mixture.dimension)
    close(noised.log_density(x), by_hand.log_density(x))
    close(noised.covariance(), by_hand.covariance())
    close(matrices(noised), by_hand.covariances)


def test_noised_samples_are_samples_of_the_noised():
    mixture = random_mixture(5, 1)
    x0 = mixture.sample(4000, generator())
    x = 0.6 * x0 + 0.8 * torch.randn(x0.shape, generator=generator(1), dtype=torch.float64)
    direct = mixture.noised(0.6, 0.8).sample(4000, generator(2))
    assert kstest(x[:, 0].numpy(), direct[:, 0].numpy()).pvalue > 1e-3


@settings(max_examples=25, deadline=None)
@given(mixtures, st.floats(0.01, 100))
def test_the_noise_predictor_is_the_scaled_score(mixture, t):
    x = states(5, mixture.dimension).requires_grad_()
    alpha_bar, beta_bar = SCHEDULE.at(t)
    (score,) = torch.autograd.grad(mixture.noised(alpha_bar, beta_bar).log_density(x).sum(), x)
    eps = mixture.noise_predictor(SCHEDULE)(x, torch.full((5,), t, dtype=torch.float64))
    close(eps, -beta_bar * score, rtol=1e-7)


def test_a_batch_of_times_is_each_row_by_itself():
    for kind in ("full", "each"):
        mixture = random_mixture(1, 2, kind=kind)
        model = mixture.noise_predictor(SCHEDULE)
        x, t = states(4, 2), torch.tensor([1.0, 33.3, 77.0, 100.0], dtype=torch.float64)
        rows = torch.cat([model(x[i : i + 1], t[i : i + 1]) for i in range(4)])
        close(model(x, t), rows)
        one = [mixture.posterior_mean(x[i : i + 1], t[i], SCHEDULE) for i in range(4)]
        close(mixture.posterior_mean(x, t, SCHEDULE), torch.cat(one))
        whole = mixture.step_posterior(x, t, SCHEDULE, s=t / 2)
        for i in range(4):
            part = mixture.step_posterior(x[i : i + 1], t[i], SCHEDULE, s=t[i] / 2)
            close(whole.covariance()[i], part.covariance()[0])
            close(whole.mean()[i], part.mean()[0])


def test_whole_times_may_be_integers_and_subsequences_mean_the_first_times():
    mixture = random_mixture(1, 2)
    x, t = states(3, 2), torch.tensor([20, 60, 100])
    expected = mixture.noise_predictor(SCHEDULE)(x, t)
    close(mixture.noise_predictor(SCHEDULE)(x, t.double()), expected)
    thinned = SCHEDULE.subsequence([20, 60, 100])
    close(mixture.noise_predictor(thinned)(x, t), expected)


def test_the_answer_has_the_shape_and_dtype_of_the_question():
    mixture = random_mixture(4, 4)
    x = states(3, 4).float().reshape(3, 1, 2, 2)
    model = mixture.noise_predictor(SCHEDULE)
    t = torch.tensor([10, 50, 90])
    for answer in (model(x, t), mixture.score(x), mixture.posterior_mean(x, t, SCHEDULE)):
        assert answer.shape == x.shape
        assert answer.dtype == torch.float32
    close(model(x, t), model(x.double(), t), rtol=1e-5, atol=1e-6)


def test_for_one_gaussian_the_noise_is_the_textbooks():
    variance, mean = 0.25, 1.5
    mixture = GaussianMixture([1.0], [[mean]], variance)
    x = states(6, 1)
    for t in (1, 40, 100):
        a, b = SCHEDULE.alpha_bar[t], SCHEDULE.beta_bar[t]
        eps = mixture.noise_predictor(SCHEDULE)(x, torch.full((6,), t))
        close(eps, b * (x - a * mean) / (a**2 * variance + b**2))


# --- posteriors -----------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(mixtures, st.floats(1, 100))
def test_the_posterior_mean_is_what_the_noise_leaves(mixture, t):
    """Tweedie: E[x_0 | x_t] = (x_t - β̄ ε*)/ᾱ; ours is a sum of linear regressions instead."""
    x = states(5, mixture.dimension)
    a, b = SCHEDULE.at(t)
    eps = mixture.noise_predictor(SCHEDULE)(x, torch.full((5,), t, dtype=torch.float64))
    close(mixture.posterior_mean(x, t, SCHEDULE), (x - b * eps) / a, rtol=1e-7, atol=1e-8)


TWO = GaussianMixture([0.35, 0.65], [[-1.0], [1.2]], [0.05, 0.15])


def plain_normal(x, mean, deviation):
    return math.exp(-0.5 * ((x - mean) / deviation) ** 2) / (deviation * math.sqrt(2 * math.pi))


@pytest.mark.parametrize(("t", "s"), [(100, 0), (60, 0), (100, 50), (30, 29), (7.5, 0.5)])
def test_the_step_posterior_is_bayes_by_quadrature(t, s):
    a, b = SCHEDULE.transition(s, t)
    prior = TWO.noised(*SCHEDULE.at(s))
    for x in (-1.0, 0.1, 2.0):

        def joint(y, x=x):
            density = prior.log_density(torch.tensor([[y]], dtype=torch.float64)).exp().item()
            return density * plain_normal(x, a * y, b)

        def integral(f, x=x):
            return quad(f, -6, 6, points=[-1, 0, 1, x], limit=200, epsabs=1e-13)[0]

        total = integral(joint)
        mean = integral(lambda y: y * joint(y)) / total
        variance = integral(lambda y, m=mean: (y - m) ** 2 * joint(y)) / total
        step = TWO.step_posterior(torch.tensor([[x]], dtype=torch.float64), t, SCHEDULE, s=s)
        close(step.mean()[0, 0], mean, rtol=1e-7)
        close(step.covariance()[0, 0, 0], variance, rtol=1e-6)
        y = torch.tensor([[0.4]], dtype=torch.float64)
        close(step.log_density(y).exp()[0], joint(0.4) / total, rtol=1e-7)


@settings(max_examples=20, deadline=None)
@given(mixtures, st.floats(2, 100), st.floats(0.02, 0.95))
def test_the_step_posterior_is_bayes_in_any_dimension(mixture, t, share):
    """p(x_s | x_t) = p(x_t | x_s) p(x_s) / p(x_t), densities each by their own route."""
    d, s = mixture.dimension, share * t
    x, y = states(4, d, 3), states(4, d, 4)
    a, b = SCHEDULE.transition(s, t)
    forward = -0.5 * ((x - a * y) / b).square().sum(1) - d * math.log(b * math.sqrt(2 * math.pi))
    before = mixture.noised(*SCHEDULE.at(s)).log_density(y)
    after = mixture.noised(*SCHEDULE.at(t)).log_density(x)
    step = mixture.step_posterior(x, t, SCHEDULE, s=s)
    close(step.log_density(y), forward + before - after, rtol=1e-7, atol=1e-6)
    one = step.mixture(2)
    close(one.log_density(y[2:3]), step.log_density(y)[2:3])
    close(one.mean(), step.mean()[2])
    close(one.covariance(), step.covariance()[2])
    close(step.covariances.shape[-3:], torch.tensor([mixture.components, d, d]))


def test_exact_steps_lead_from_noise_back_to_the_data():
    x = TWO.noised(SCHEDULE.alpha_bar[-1], SCHEDULE.beta_bar[-1]).sample(4000, generator(1))
    g = generator(2)
    for t, s in ((100, 70), (70, 20), (20, 0)):  # three steps are enough, for they are exact
        x = TWO.step_posterior(x, t, SCHEDULE, s=s).sample(g)
    direct = TWO.sample(4000, generator(3))
    assert kstest(x[:, 0].numpy(), direct[:, 0].numpy()).pvalue > 1e-3


@pytest.mark.parametrize("draw", ["sample", "sample_gaussian"])
@pytest.mark.parametrize("kind", ["full", "each"])
def test_draws_of_a_step_have_its_mean_and_covariance(draw, kind):
    mixture = random_mixture(8, 2, kind=kind)
    step = mixture.step_posterior(states(1, 2).repeat(20_000, 1), 90, SCHEDULE, s=10)
    drawn = getattr(step, draw)(generator(4))
    error = torch.sqrt(step.covariance()[0].diagonal() / len(drawn))
    assert ((drawn.mean(0) - step.mean()[0]).abs() < 4 * error).all()
    close(drawn.T.cov(), step.covariance()[0], rtol=0.05, atol=0.03)


@pytest.mark.parametrize("kind", ["full", "each"])
def test_rows_with_times_of_their_own_are_drawn_with_their_own_variance(kind):
    mixture, n = random_mixture(8, 2, kind=kind), 10_000
    t = torch.tensor([95.0, 12.0]).repeat_interleave(n)
    step = mixture.step_posterior(states(1, 2).repeat(2 * n, 1), t, SCHEDULE, s=10.0)
    drawn = step.sample(generator(4)).reshape(2, n, 2)
    for i in range(2):
        close(drawn[i].T.cov(), step.covariance()[i * n], rtol=0.06, atol=0.003)
    assert step.covariance()[0].trace() > 5 * step.covariance()[n].trace()


def test_one_gaussian_is_not_enough_for_a_large_step():
    """Between two far points the posterior has two peaks, and equal moments don't show them."""
    mixture = GaussianMixture([0.5, 0.5], [[-2.0], [2.0]], 0.01)
    step = mixture.step_posterior(torch.zeros(2000, 1), 100, SCHEDULE, s=0)
    exact, gaussian = step.sample(generator()), step.sample_gaussian(generator())
    assert (exact.abs() < 1).sum() == 0
    assert (gaussian.abs() < 1).sum() > 500


def test_by_default_a_step_leads_to_the_time_before():
    x = states(3, 1)
    close(
        TWO.step_posterior(x, 40, SCHEDULE).mean(), TWO.step_posterior(x, 40, SCHEDULE, 39).mean()
    )
    thinned = SCHEDULE.subsequence([15, 40, 90])
    close(TWO.step_posterior(x, 40, thinned).mean(), TWO.step_posterior(x, 40, SCHEDULE, 15).mean())
    t = torch.tensor([15, 40, 90])
    expected = [
        TWO.step_posterior(x[i : i + 1], t[i], SCHEDULE, s).mean()
        for i, s in ((0, 0), (1, 15), (2, 40))
    ]
    close(TWO.step_posterior(x, t, thinned).mean(), torch.cat(expected))


def test_between_two_fixed_ends_the_step_is_the_textbooks():
    """A single point of data: p(x_{t-1} | x_t, x_0) of Ho et al., deviation "posterior"."""
    point = GaussianMixture([1.0], [[0.7, -0.2]], 0.0)
    x = states(3, 2)
    step = point.step_posterior(x, 60, SCHEDULE)
    a, b = SCHEDULE.alpha[60], SCHEDULE.beta[60]
    before, now = SCHEDULE.beta_bar[59] ** 2, SCHEDULE.beta_bar[60] ** 2
    mean = (SCHEDULE.alpha_bar[59] * b**2 * point.means + a * before * x) / now
    close(step.mean(), mean)
    sigma = SCHEDULE.ddpm_sigma("posterior")[60]
    close(step.covariance()[0], sigma**2 * np.eye(2))


# --- data without a density -----------------------------------------------------------------------


def test_points_and_lines_are_fine_once_there_is_noise():
    flat = [  # rounding leaves some of them eigenvalues a little above 0, or below
        GaussianMixture([1.0], [[0.0, 0.0]], torch.outer(way, way)[None])
        for way in torch.nn.functional.normalize(states(8, 2))
    ]
    points = GaussianMixture([0.5, 0.5], [[0.0, 0.0], [1.0, 1.0]], 0.0)
    x = states(4, 2)
    for mixture in (*flat, points):
        assert torch.isfinite(mixture.sample(20, generator())).all()
        close(mixture.noise_predictor(SCHEDULE)(x, torch.full((4,), 5)).isfinite().all(), True)
        for call in (mixture.log_density, mixture.score):
            with pytest.raises(ValueError, match="`x` has no density here: a covariance is sing"):
                call(x)
        with pytest.raises(ValueError, match="`x` has no density here"):
            mixture.noise_predictor(SCHEDULE)(x, torch.zeros(4))
        with pytest.raises(ValueError, match="leaves no variance"):
            mixture.step_posterior(x, 5, SCHEDULE, s=0).log_density(x)
    line = GaussianMixture([1.0], [[0.0, 0.0]], [[[1.0, 1.0], [1.0, 1.0]]])
    drawn = line.sample(100, generator())
    close(drawn[:, 0], drawn[:, 1])
    back = points.step_posterior(points.means.repeat(3, 1), 1, SCHEDULE, s=0).sample(generator())
    close(back, points.means.repeat(3, 1))


# --- bad input ------------------------------------------------------------------------------------

OK = random_mixture(0, 2)
X = torch.zeros(3, 2, dtype=torch.float64)
EPS = OK.noise_predictor(SCHEDULE)
NAN = float("nan")


def made(weights=(0.5, 0.5), means=((0.0, 0.0), (1.0, 1.0)), covariances=1.0):
    return GaussianMixture(weights, means, covariances)


ROUND, SKEW, SADDLE = [[1.0, 0], [0, 1]], [[1.0, 0.5], [0, 1]], [[1.0, 2], [2, 1]]
BAD = [
    (lambda: made([0.5, 0.6]), ValueError, "`weights` must add up to 1, got 1.1"),
    (lambda: made([1.5, -0.5]), ValueError, "`weights` must not be negative, got -0.5"),
    (lambda: made([[0.5, 0.5]]), ValueError, "`weights` must be one row"),
    (lambda: made([NAN, 1.0]), ValueError, "`weights` must be finite"),
    (lambda: made(["a", "b"]), TypeError, "`weights` must hold real numbers"),
    (lambda: made(means=[0.0, 1.0]), ValueError, r"`means` must have shape \(2, d\)"),
    (lambda: made(means=[[0.0]] * 3), ValueError, r"got \(3, 1\)"),
    (lambda: made(means=torch.full((2, 2), NAN)), ValueError, "`means` must be finite, got nan"),
    (lambda: made(means=torch.zeros(2, 2) > 0), TypeError, "`means` must hold real numbers"),
    (lambda: made(covariances=-1.0), ValueError, "`covariances` must not be negative"),
    (lambda: made(covariances=[1.0, 1.0, 1.0]), ValueError, "`covariances` must be a number or"),
    (lambda: made(covariances=ROUND), ValueError, "`covariances` must be a number or"),
    (lambda: made(covariances=[ROUND, SKEW]), ValueError, "symmetric, component 1 is not"),
    (lambda: made(covariances=[SADDLE, ROUND]), ValueError, "component 0 has the eigenvalue -1"),
    (lambda: made(covariances=math.inf), ValueError, "`covariances` must be finite"),
    (lambda: OK.sample(0, generator()), ValueError, "`n` must be at least 1, got 0"),
    (lambda: OK.sample(5, 0), TypeError, "`generator` must be a torch.Generator"),
    (lambda: OK.log_density(X[:, :1]), ValueError, "`x` must have 2 numbers in each of its rows"),
    (lambda: OK.log_density(X.long()), TypeError, "`x` must have a floating dtype"),
    (lambda: OK.log_density(X.numpy()), TypeError, "`x` must be a torch.Tensor"),
    (lambda: OK.score(X * NAN), ValueError, r"`x` must be finite, got NaN \(6 of 6"),
    (lambda: OK.score(X.to("meta")), ValueError, "`x` must be on the mixture's device, cpu"),
    (lambda: OK.noised(-1.0, 1.0), ValueError, "`alpha_bar` must lie in"),
    (lambda: EPS(X, torch.tensor([1, 2])), ValueError, r"`t` must be a number or have the batch's"),
    (lambda: EPS(X, torch.tensor([1, 2, 101])), ValueError, r"`t` must lie in \[0, 100\], got 101"),
    (lambda: OK.step_posterior(X, 5, SCHEDULE, 5), ValueError, "`s` must be at least 0 and less"),
    (lambda: OK.step_posterior(X, 0, SCHEDULE), ValueError, "`s` must be at least 0 and less"),
    (lambda: OK.posterior_mean(X, 0, SCHEDULE), ValueError, "`s` must be at least 0 and less"),
    (
        lambda: OK.step_posterior(X, 5, SCHEDULE).log_density(X[:1]),
        ValueError,
        r"`x` must be a tensor of shape \(3, 2\), got \(1, 2\)",
    ),
    (
        lambda: OK.step_posterior(X, 5, SCHEDULE).mixture(3),
        ValueError,
        "`row` must be from 0 to 2, got 3",
    ),
    (
        lambda: OK.step_posterior(X, 5, SCHEDULE).sample(None),
        TypeError,
        "`generator` must be a torch.Generator",
    ),
]


@pytest.mark.parametrize(("call", "kind", "message"), BAD)
def test_bad_input_is_named(call, kind, message):
    with pytest.raises(kind, match=message):
        call()
