"""Score families: exact expectations against sampling, closed forms, and the scale that keeps H."""

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import digamma
from scipy.stats import kstest, norm

from lib.attention import entropy_of_scores, families, softmax
from lib.attention.families import (
    BoundedEdge,
    Exponential,
    FiniteVocabulary,
    Gap,
    Gaussian,
    NeedleInNoise,
    Sphere,
)

IID = [Gaussian(1.5), Sphere(16), Exponential(), BoundedEdge(1.0), BoundedEdge(2.5)]
ALL = [Gap(6.0), NeedleInNoise(5.0, 1.2), *IID, FiniteVocabulary(12)]
USUAL = {Sphere: 0.25}  # 1/√16; every other family has scores of order 1


def scale_of(family, size):
    return size * USUAL.get(type(family), 1.0)


def name(family):
    return repr(family)


# --- exact expectations ---------------------------------------------------------------------------


@pytest.mark.parametrize("family", ALL, ids=name)
@pytest.mark.parametrize(("n", "size"), [(20, 0.4), (200, 1.0), (200, 3.0)])
def test_exact_expectations_agree_with_sampling(family, n, size):
    lam = scale_of(family, size)
    scores = family.sample(np.random.default_rng(n), n, rows=3000)
    weights = softmax(scores, lam)
    for measured, exact in (
        (entropy_of_scores(scores, lam), family.expected_entropy(n, lam)),
        ((weights**2).sum(-1), family.participation(n, lam)),
    ):
        error = measured.std() / np.sqrt(len(measured))
        assert abs(measured.mean() - exact) <= 4.5 * error + 1e-9


@pytest.mark.parametrize("family", [*IID, Gap(3.0), NeedleInNoise(3.0, 1.0)], ids=name)
def test_two_keys_agree_with_a_double_integral(family):
    # E H of n = 2 by brute force over both scores' quantiles, with no Laplace transform.
    lam = scale_of(family, 1.2)
    u = np.polynomial.legendre.leggauss(200)
    v, w = 30 * u[0], 30 * u[1]  # log-odds, weight of each score
    w = w * 0.25 / np.cosh(v / 2) ** 2
    if isinstance(family, Gap | NeedleInNoise):
        s = family.sigma * Gaussian().quantile(v)
        pairs = np.stack([np.full_like(s, family.delta), s], axis=-1)
        expected = w @ entropy_of_scores(pairs, lam)
    else:
        s = family.quantile(v)
        a, b = np.meshgrid(s, s, indexing="ij")
        expected = w @ entropy_of_scores(np.stack([a, b], axis=-1), lam) @ w
    assert family.expected_entropy(2, lam) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("family", ALL, ids=name)
def test_entropy_is_log_n_at_scale_zero_and_falls_with_the_scale(family):
    lams = scale_of(family, 1.0) * np.array([0.0, 0.3, 1.0, 2.0, 4.0])
    entropy = family.expected_entropy(500, lams)
    assert entropy[0] == pytest.approx(np.log(500), rel=1e-14)
    assert (np.diff(entropy) < 0).all()
    assert (entropy > 0).all()


@pytest.mark.parametrize("family", ALL, ids=name)
def test_one_key_has_entropy_zero(family):
    assert family.expected_entropy(1, scale_of(family, 1.0)) == pytest.approx(0.0, abs=1e-8)


def test_the_gaussian_law_is_exact_for_very_many_keys():
    # log n - λ²/2 below freezing; the corrections die as a power of n.
    assert Gaussian().expected_entropy(1e12, 1.5) == pytest.approx(np.log(1e12) - 1.125, abs=1e-8)
    assert Gaussian(2.0).expected_entropy(1e12, 0.75) == pytest.approx(
        Gaussian().expected_entropy(1e12, 1.5), rel=1e-12
    )


@pytest.mark.parametrize(
    "family", [Gaussian(), Exponential(), BoundedEdge(1.0), Sphere(16)], ids=name
)
def test_quantiles_are_those_of_the_samples(family):
    scores = family.sample(np.random.default_rng(2), 4000)[0]
    grid = np.linspace(-40, 40, 20_001)

    def share_below(s):
        return 1 / (1 + np.exp(-np.interp(s, family.quantile(grid), grid)))

    assert kstest(scores, share_below).pvalue > 1e-3


# --- closed forms ---------------------------------------------------------------------------------


@pytest.mark.parametrize("family", [*IID, FiniteVocabulary(12)], ids=name)
def test_the_log_mgf_and_its_slope_are_those_of_the_scores(family):
    grid = np.linspace(-44, 60, 20_001)
    s, step = family.quantile(grid), grid[1] - grid[0]
    share = step * 0.25 / np.cosh(grid / 2) ** 2
    lam = scale_of(family, 0.6)
    mgf = share @ np.exp(lam * s)
    tolerance = 1e-3 if isinstance(family, FiniteVocabulary) else 1e-6  # its quantile has steps
    assert family.log_mgf(lam) == pytest.approx(np.log(mgf), rel=tolerance)
    assert family.tilted_mean(lam) == pytest.approx(
        share @ (s * np.exp(lam * s)) / mgf, rel=tolerance
    )
    assert family.log_mgf(0.0) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("family", [*IID, FiniteVocabulary(12)], ids=name)
def test_the_tilt_divergence_is_what_the_scale_takes_off_log_n(family):
    lam = scale_of(family, 0.4)
    n = 10_000
    lost = np.log(n) - family.expected_entropy(n, lam)
    assert family.tilt_divergence(lam) == pytest.approx(lost, rel=0.02)
    assert family.tilt_divergence(0.0) == pytest.approx(0.0, abs=1e-12)


def test_the_random_energy_model_has_its_freezing_line():
    n = np.array([16.0, 1e4, 1e9])
    np.testing.assert_allclose(Gaussian(2.0).freezing_scale(n), np.sqrt(2 * np.log(n)) / 2)
    generic = super(Gaussian, Gaussian(2.0)).freezing_scale(n)  # by solving I(λ) = log n
    np.testing.assert_allclose(generic, Gaussian(2.0).freezing_scale(n), rtol=1e-10)


def test_the_entropy_per_log_n_approaches_the_phase_diagram():
    # H / log n → max(0, 1 - (λ/λ_c)²), slowly: the error falls with n on both sides.
    for share in (0.5, 1.0, 1.5):
        limit = max(0.0, 1 - share**2)
        error = []
        for n in (1e2, 1e4, 1e8, 1e12):
            family = Gaussian()
            h = family.expected_entropy(n, share * family.freezing_scale(n))
            error.append(abs(h / np.log(n) - limit))
        assert (np.diff(error) < 0).all()


@pytest.mark.parametrize("alpha", [0.3, 0.5])
def test_frozen_gaussian_entropy_approaches_poisson_dirichlet_from_below(alpha):
    family, limit = Gaussian(), families.poisson_dirichlet_entropy(alpha)
    n = np.array([1e2, 1e4, 1e8, 1e12])
    h = family.expected_entropy(n, family.freezing_scale(n) / alpha)
    assert (np.diff(h) > 0).all()
    assert (h < limit).all()
    np.testing.assert_allclose(family.frozen_entropy(n, family.freezing_scale(n) / alpha), limit)


@pytest.mark.parametrize("alpha", [0.3, 0.5, 0.7])
def test_exponential_scores_have_poisson_dirichlet_weights(alpha):
    h = Exponential().expected_entropy(1e9, 1 / alpha)
    assert h == pytest.approx(families.poisson_dirichlet_entropy(alpha), abs=4e-3)
    assert Exponential().participation(1e9, 1 / alpha) == pytest.approx(1 - alpha, abs=4e-3)
    assert Exponential().entropy_law(1e9, 1 / alpha) == families.poisson_dirichlet_entropy(alpha)


def test_bounded_scores_lose_only_the_logarithm_of_the_scale():
    assert BoundedEdge(1.0).entropy_law(1e6, 100.0) == pytest.approx(np.log(1e4) + 1, rel=1e-9)
    assert BoundedEdge(1.0).expected_entropy(1e6, 100.0) == pytest.approx(np.log(1e4) + 1, abs=1e-3)


def test_laws_say_nothing_where_nothing_is_known():
    assert np.isnan(BoundedEdge(1.0).entropy_law(100, 1e4))
    assert np.isnan(Gaussian().frozen_entropy(100, 1.0))


def test_poisson_dirichlet_entropy_and_its_inverse():
    assert families.poisson_dirichlet_entropy(0.5) == pytest.approx(2 * np.log(2), rel=1e-14)
    # The definition: E[-log P] of a size-biased weight, which is Beta(1-α, α).
    a = 0.7
    density = digamma(1.0) - digamma(1 - a)
    norm_, _ = quad(lambda x: x ** (-a) * (1 - x) ** (a - 1), 0, 1)
    mean, _ = quad(lambda x: -np.log(x) * x ** (-a) * (1 - x) ** (a - 1), 0, 1)
    assert density == pytest.approx(mean / norm_, rel=1e-6)
    for entropy in (1e-15, 1e-5, 0.1, 1.0, 5.0, 50.0):
        alpha = families.poisson_dirichlet_alpha(entropy)
        if alpha < 0.999:
            assert families.poisson_dirichlet_entropy(alpha) == pytest.approx(entropy, rel=1e-6)
        assert 0 < alpha <= 1
    assert families.poisson_dirichlet_alpha(0.0) == 0.0


# --- the scale that keeps the entropy ------------------------------------------------------------


@pytest.mark.parametrize("family", ALL[:-1], ids=name)
def test_the_keeping_scale_keeps_the_expected_entropy(family):
    n = np.array([64.0, 4096.0])
    lam = family.keeping_scale(n, 2.0)
    np.testing.assert_allclose(family.expected_entropy(n, lam), 2.0, rtol=1e-7)


@pytest.mark.parametrize(
    ("family", "growth"),
    [
        (Gap(4.0), lambda n: np.log(n)),
        (Gaussian(), lambda n: np.sqrt(np.log(n))),
        (Exponential(), np.ones_like),
        (BoundedEdge(1.0), lambda n: n),
        (BoundedEdge(2.0), np.sqrt),
    ],
    ids=["gap: log n", "Gaussian: √log n", "exponential: constant", "uniform: n", "edge 2: √n"],
)
def test_each_family_has_its_own_law(family, growth):
    n = np.array([1e6, 1e9, 1e12])
    ratio = family.keeping_scale(n, 2.0) / growth(n)
    drift = np.abs(np.diff(np.log(ratio))) / np.diff(np.log(np.log(n)))
    assert (drift < 0.35).all()  # in powers of log n: half a power would be seen
    law = family.keeping_law(n, 2.0) / growth(n)
    assert (np.abs(np.diff(np.log(law))) / np.diff(np.log(np.log(n))) < 0.35).all()


def test_the_articles_formula_gives_log_n_or_its_root_as_the_maximum_grows():
    n = np.array([1e4, 1e8])
    bounded = np.divide(*BoundedEdge(1.0).floor_scale(n, 1e-9)[::-1])
    gaussian = np.divide(*Gaussian().floor_scale(n, 1e-9)[::-1])
    assert bounded == pytest.approx(2.0, rel=1e-3)  # log n doubles
    assert gaussian == pytest.approx(np.sqrt(2), rel=0.08)


def test_the_floor_scale_leaves_at_least_the_entropy_asked_for():
    for family in IID:
        lam = family.floor_scale(4096, 2.0)
        assert family.expected_entropy(4096, lam) > 2.0


def test_the_gap_model_keeps_its_focus_by_the_logarithm_exactly():
    n = np.array([2, 100, 10**6])
    family = Gap(3.0)
    lam = family.focus_scale(n, 0.8)
    np.testing.assert_allclose(lam, np.maximum(np.log(n - 1) + np.log(4), 0) / 3, rtol=1e-12)
    np.testing.assert_allclose(family.focus(n, lam), 0.8, rtol=1e-12)
    scores = family.sample(np.random.default_rng(0), 100)
    np.testing.assert_allclose(softmax(scores, lam[1])[0, 0], 0.8, rtol=1e-12)


def test_keeping_the_focus_does_not_keep_the_entropy():
    n = np.array([1e2, 1e4, 1e8])
    lam = Gap(3.0).focus_scale(n, 0.5)
    np.testing.assert_allclose(
        Gap(3.0).expected_entropy(n, lam), np.log(2) + 0.5 * np.log(n - 1), rtol=1e-12
    )


def test_the_gap_closed_forms_agree_with_the_scores_themselves():
    scores = Gap(2.0).sample(np.random.default_rng(0), 50)
    for lam in (0.0, 0.5, 3.0):
        assert Gap(2.0).expected_entropy(50, lam) == pytest.approx(
            entropy_of_scores(scores, lam)[0], rel=1e-12
        )
        assert Gap(2.0).participation(50, lam) == pytest.approx(
            (softmax(scores, lam) ** 2).sum(), rel=1e-12
        )


@pytest.mark.parametrize("n", [30, 1000, 10**6])
def test_the_needles_focus_law_is_a_lower_bound(n):
    family = NeedleInNoise(5.0, 1.0)
    for lam in (0.5, 2.0, 5.0, 8.0):
        assert family.focus(n, lam) >= family.focus_law(n, lam) - 1e-9


def test_the_needles_weight_agrees_with_sampling():
    family = NeedleInNoise(4.0, 1.0)
    weights = softmax(family.sample(np.random.default_rng(4), 300, rows=4000), 2.0)[:, 0]
    error = weights.std() / np.sqrt(len(weights))
    assert abs(weights.mean() - family.focus(300, 2.0)) < 4.5 * error


def test_the_bound_on_the_needles_weight_peaks_at_its_best_scale_and_halves_at_capacity():
    family = NeedleInNoise(4.0, 0.8)
    lam = family.best_scale
    n = family.capacity + 1
    assert family.focus_law(n, lam) == pytest.approx(0.5, rel=1e-9)
    assert family.focus_law(n, 0.9 * lam) < 0.5
    assert family.focus_law(n, 1.1 * lam) < 0.5
    assert np.isnan(family.focus_scale(2 * n, 0.5))
    assert family.focus_law(1000, family.focus_scale(1000, 0.7)) == pytest.approx(0.7, rel=1e-9)


def test_below_capacity_a_larger_scale_than_the_bounds_best_does_better():
    family = NeedleInNoise(6.0, 1.0)
    n = 1e6
    assert n < family.capacity
    assert family.focus(n, 2 * family.best_scale) > family.focus(n, family.best_scale)
    assert family.focus_at_infinite_scale(n) == pytest.approx(norm.cdf(6.0) ** (n - 1), rel=1e-9)
    assert family.focus(n, 20.0) == pytest.approx(family.focus_at_infinite_scale(n), abs=1e-3)


def test_no_scale_lowers_a_vocabulary_below_its_ties():
    family = FiniteVocabulary(8)
    rng = np.random.default_rng(5)
    scores = family.sample(rng, 100, rows=4000)
    measured = entropy_of_scores(scores, np.inf)
    error = measured.std() / np.sqrt(len(measured))
    assert abs(measured.mean() - family.least_entropy(100)) < 4.5 * error
    assert family.expected_entropy(100, 300.0) == pytest.approx(family.least_entropy(100), abs=1e-6)
    np.testing.assert_array_equal(np.isnan(family.keeping_scale([20, 10_000], 2.0)), [False, True])
    np.testing.assert_array_equal(np.isnan(family.keeping_law([20, 10_000], 2.0)), [False, True])
    assert family.freezing_scale(1e9) == np.inf


def test_the_table_has_one_member_of_each_family():
    table = families.table()
    assert len({type(f) for f in table}) == len(table) == 7
    assert all(f.title and f.law for f in table)


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ALL, ids=name)
@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda f: f.sample(0, 8), TypeError, "`rng` must be a numpy.random.Generator"),
        (lambda f: f.sample(np.random.default_rng(0), 0), ValueError, "`n` must be at least 1"),
        (lambda f: f.sample(np.random.default_rng(0), 8, 0), ValueError, "`rows` must be at least"),
        (lambda f: f.expected_entropy(0, 1.0), ValueError, "`n` must be finite and at least 1"),
        (lambda f: f.expected_entropy(8, -1.0), ValueError, "`scale` must be finite and not neg"),
        (lambda f: f.participation(8, np.inf), ValueError, "`scale` must be finite"),
        (lambda f: f.entropy_law([8, 9], [1, 2, 3]), ValueError, "`n` and `scale` must broadcast"),
        (lambda f: f.keeping_scale(8, 3.0), ValueError, "`target` must lie strictly between 0"),
        (lambda f: f.keeping_law([8, 100], 3.0), ValueError, "log n = 2.07944, got 3.0"),
        (lambda f: f.keeping_law(8, 0.0), ValueError, "`target` must lie strictly between 0"),
        (lambda f: f.keeping_scale(8, np.nan), ValueError, "`target` must be finite"),
    ],
)
def test_every_family_refuses_bad_input_by_name(family, call, error, message):
    with pytest.raises(error, match=message):
        call(family)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: Gaussian(0.0), ValueError, "`sigma` must be positive, got 0.0"),
        (lambda: Gaussian(np.nan), ValueError, "`sigma` must be finite"),
        (lambda: Sphere(1), ValueError, "`d` must be at least 2, got 1"),
        (lambda: BoundedEdge(-1.0), ValueError, "`edge` must be positive"),
        (lambda: FiniteVocabulary(1), ValueError, "`types` must be at least 2"),
        (lambda: Gap(0.0), ValueError, "`delta` must be positive"),
        (lambda: NeedleInNoise(6.0, 0.0), ValueError, "`sigma` must be positive"),
        (lambda: NeedleInNoise(6.0, -1.0), ValueError, "`sigma` must not be negative"),
        (lambda: Gap(1.0).focus_scale(8, 1.0), ValueError, "`weight` must lie strictly between"),
        (lambda: Gap(1.0).focus_scale(1, 0.5), ValueError, "`n` must be finite and at least 2"),
        (
            lambda: families.poisson_dirichlet_entropy(1.0),
            ValueError,
            r"`alpha` must lie in \[0, 1",
        ),
        (lambda: families.poisson_dirichlet_alpha(-1.0), ValueError, "`entropy` must not be neg"),
        (lambda: Gaussian().expected_entropy(100, 1e4), ValueError, "`scale` must be below"),
        (lambda: Gaussian().freezing_scale(0.5), ValueError, "`n` must be finite and at least 1"),
    ],
)
def test_parameters_are_refused_by_name(call, error, message):
    with pytest.raises(error, match=message):
        call()
