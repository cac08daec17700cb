"""The scale that keeps the entropy: the article's law, the exact solution, curves of own data."""

import numpy as np
import pytest
import scipy.optimize
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lib.attention import (
    entropy_curve,
    entropy_curve_of_head,
    entropy_invariant_scale,
    entropy_of_scores,
    length_factor,
    scale_for_entropy,
    scale_for_mean_entropy,
    scaling,
    softmax,
)


@pytest.fixture
def rng():
    return np.random.default_rng(9034)


# --- the article's law ----------------------------------------------------------------------------


def test_the_default_scale_is_that_of_torch_at_512_keys():
    assert entropy_invariant_scale(512, 64) == pytest.approx(1 / 8, rel=1e-15)
    n = np.array([2, 64, 4096])
    np.testing.assert_allclose(
        entropy_invariant_scale(n, 100), np.log(n) / np.log(512) / 10, rtol=1e-15
    )


def test_kappa_is_the_constant_of_the_article():
    assert entropy_invariant_scale(100, 32, kappa=2.5) == pytest.approx(2.5 * np.log(100) / 32)
    default = np.sqrt(32) / np.log(512)
    assert entropy_invariant_scale(100, 32) == pytest.approx(
        entropy_invariant_scale(100, 32, kappa=default), rel=1e-15
    )


def test_one_key_gives_scale_zero():
    assert entropy_invariant_scale(1, 64) == 0.0


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((0, 64), ValueError, "`n` must be finite and at least 1, got 0"),
        (([4, -1], 64), ValueError, "`n` must be finite and at least 1, got -1"),
        ((np.inf, 64), ValueError, "`n` must be finite"),
        (("512", 64), TypeError, "`n` must hold real numbers"),
        ((512, 0), ValueError, "`d` must be at least 1, got 0"),
        ((512, 64.0), TypeError, "`d` must be a whole number"),
        ((512, True), TypeError, "`d` must be a whole number"),
        ((512, 64, 0.0), ValueError, "`kappa` must be positive"),
        ((512, 64, np.nan), ValueError, "`kappa` must be finite"),
        ((512, 64, [1.0, 2.0]), ValueError, "`kappa` must be a single number"),
    ],
)
def test_the_law_refuses_bad_input_by_name(arguments, error, message):
    with pytest.raises(error, match=message):
        entropy_invariant_scale(*arguments)


def test_the_length_factor_is_clamped_below_as_in_qwen():
    np.testing.assert_allclose(length_factor([1, 64, 512, 4096], 512), [1, 1, 1, 4 / 3], rtol=1e-15)
    assert length_factor(8, 512, minimum=0.0) == pytest.approx(1 / 3)
    assert length_factor(1, 512, minimum=0.0) == 0.0


def test_the_length_factor_sharpens_weights_by_a_power(rng):
    scores = rng.normal(size=40)
    powered = softmax(scores) ** length_factor(512 * 512, 512)
    np.testing.assert_allclose(softmax(scores, 2.0), powered / powered.sum(), rtol=1e-13)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((0, 512), {}, "`n` must be"),
        ((8, 1), {}, "`trained_length` must be finite and at least 2, got 1"),
        ((8, np.inf), {}, "`trained_length` must be finite"),
        ((8, 512), {"minimum": -1.0}, "`minimum` must not be negative"),
    ],
)
def test_the_length_factor_refuses_bad_input_by_name(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        length_factor(*arguments, **options)


# --- the scale for an entropy ---------------------------------------------------------------------


@given(
    hnp.arrays(np.float64, st.integers(2, 30), elements=st.floats(-20, 20), unique=True),
    st.floats(0.001, 0.999),
    st.sampled_from([1e-250, 1e-6, 1.0, 1e6, 1e250]),
)
@settings(deadline=None)
def test_the_scale_gives_back_the_entropy_for_tiny_and_huge_scores(scores, share, size):
    scores = np.unique(np.round(scores, 6)) * size
    if len(scores) < 2:
        return
    target = share * np.log(len(scores))
    lam = scale_for_entropy(scores, target)
    assert entropy_of_scores(scores, lam) == pytest.approx(target, rel=1e-9)


@given(
    hnp.arrays(np.int64, st.integers(2, 30), elements=st.integers(-3, 3)), st.floats(0.001, 0.999)
)
@settings(deadline=None)
def test_the_scale_gives_back_the_entropy_with_ties(scores, share):
    ties = np.log((scores == scores.max()).sum())
    target = ties + share * (np.log(len(scores)) - ties)
    lam = scale_for_entropy(scores, target)
    if ties == np.log(len(scores)):
        assert lam == 0.0
    else:
        assert entropy_of_scores(scores, lam) == pytest.approx(target, rel=1e-11)


def test_the_scale_agrees_with_brentq(rng):
    scores = rng.normal(size=(20, 300))
    ours = scale_for_entropy(scores, 3.0)
    for row, lam in zip(scores, ours, strict=True):
        root = scipy.optimize.brentq(lambda x, row=row: entropy_of_scores(row, x) - 3.0, 0, 50)
        assert lam == pytest.approx(root, rel=1e-10)


def test_the_gap_model_has_its_closed_form():
    # One key at Δ, n-1 at 0, p = 1/2: H = log 2 + log(n-1)/2 at λ = log(n-1)/Δ.
    scores = np.zeros(1025)
    scores[3] = 5.0
    lam = scale_for_entropy(scores, np.log(2) + np.log(1024) / 2)
    assert lam == pytest.approx(np.log(1024) / 5, rel=1e-12)


@pytest.mark.parametrize("target", [1e-12, 1e-100, 1e-300])
def test_entropies_far_below_rounding_are_reached(target):
    lam = scale_for_entropy([0.0, -1.0, -3.0], target)
    assert entropy_of_scores([0.0, -1.0, -3.0], lam) == pytest.approx(target, rel=1e-10, abs=0)


def test_a_plateau_of_the_entropy_is_crossed():
    # H falls from log 3 to log 2, waits over nine decades of λ, and falls again.
    scores = [0.0, -1e-9, -1.0]
    for target in (1.0, np.log(2) + 1e-9, np.log(2) - 1e-6, 0.1):
        lam = scale_for_entropy(scores, target)
        assert entropy_of_scores(scores, lam) == pytest.approx(target, rel=1e-12)


def test_few_evaluations_settle_many_rows(rng, monkeypatch):
    calls = []
    original = scaling.entropy_and_variance

    def counted(rows, scale):
        calls.append(len(rows))
        return original(rows, scale)

    monkeypatch.setattr(scaling, "entropy_and_variance", counted)
    scores = rng.normal(size=(500, 100)) * rng.choice([1e-3, 1, 1e3], size=(500, 1))
    scale_for_entropy(scores, rng.uniform(np.log(2), np.log(90), size=500))
    assert len(calls) <= 25  # the slowest row; bisection alone takes about 60
    assert sum(calls) <= 500 * 9  # the average row


def test_targets_at_the_ends_give_the_limits():
    scores = [1.0, 1.0, 0.0, -2.0, -np.inf]
    np.testing.assert_array_equal(scale_for_entropy(scores, np.log([4, 2])), [0.0, np.inf])
    assert scale_for_entropy(scores, np.log(4) + 4e-16) == 0.0
    assert scale_for_entropy([5.0], 0.0) == 0.0
    assert scale_for_entropy([5.0, 1.0], 0.0) == np.inf


def test_target_broadcasts_against_rows(rng):
    scores = rng.normal(size=(3, 50))
    target = np.array([[1.0], [2.0]])
    lam = scale_for_entropy(scores, target)
    assert lam.shape == (2, 3)
    np.testing.assert_allclose(entropy_of_scores(scores, lam), target * np.ones(3), rtol=1e-11)
    np.testing.assert_allclose(scale_for_entropy(scores.T, target, axis=0), lam, rtol=1e-14)


def test_hidden_keys_do_not_count(rng):
    scores = rng.normal(size=40)
    masked = np.concatenate([scores, np.full(9, -np.inf)])
    assert scale_for_entropy(masked, 2.0) == pytest.approx(scale_for_entropy(scores, 2.0))
    with pytest.raises(ValueError, match=r"log\(visible keys\) = 3.68888"):
        scale_for_entropy(masked, 3.7)


@pytest.mark.parametrize("solve", [scale_for_entropy, scale_for_mean_entropy])
@pytest.mark.parametrize(
    ("scores", "target", "error", "message"),
    [
        ([0.0, 1.0], 0.8, ValueError, r"`target` must lie strictly between .* = 0 and .* 0.693147"),
        ([0.0, 1.0], -0.1, ValueError, "`target` must lie strictly between .* got -0.1"),
        ([1.0, 1.0, 0.0], 0.5, ValueError, "largest score.* = 0.693147 and .*, got 0.5"),
        ([5.0], 0.1, ValueError, "`target` must lie strictly between .* = 0 and .* = 0, got 0.1"),
        ([0.0, 1.0], np.nan, ValueError, "`target` must"),
        ([0.0, 1.0], "low", TypeError, "`target` must hold real numbers"),
        ([0.0, np.nan], 0.3, ValueError, "`scores` must not hold NaN"),
        ([], 0.3, ValueError, "`scores` must not be empty"),
        ([0.0, 5e-324], 0.3, ValueError, "`scores` differ by so little"),
    ],
)
def test_the_solver_refuses_bad_input_by_name(solve, scores, target, error, message):
    with pytest.raises(error, match=message):
        solve(scores, target)


def test_the_solver_names_the_row_of_a_bad_target(rng):
    scores = rng.normal(size=(4, 8))
    scores[2, 3:] = -np.inf  # log 3 = 1.0986 is the most that row 2 can have
    with pytest.raises(ValueError, match=r"got 1\.5 in row 2"):
        scale_for_entropy(scores, 1.5)
    with pytest.raises(ValueError, match="`target` must broadcast against the rows"):
        scale_for_entropy(scores, [1.0, 1.0, 1.0])


def test_one_scale_for_a_head_keeps_the_mean_entropy(rng):
    scores = rng.normal(size=(30, 200)) * rng.uniform(0.1, 5, size=(30, 1))
    lam = scale_for_mean_entropy(scores, 2.5)
    assert entropy_of_scores(scores, lam).mean() == pytest.approx(2.5, rel=1e-12)
    assert scale_for_mean_entropy(scores, np.log(200)) == 0.0
    assert scale_for_mean_entropy(scores, 0.0) == np.inf


# --- curves ---------------------------------------------------------------------------------------


def test_uniform_weights_have_slope_one(rng):
    curve = entropy_curve(np.zeros((5, 256)), scale=3.0, rng=rng)
    np.testing.assert_allclose(curve.entropy, np.log(curve.sizes), rtol=1e-14)
    assert curve.slope.value == pytest.approx(1.0, rel=1e-12)
    assert np.isnan(curve.kept_scale[1:]).all()  # equal scores: no scale brings log n down


def test_a_curve_starts_at_its_reference_with_the_scale_in_force(rng):
    scores = rng.normal(size=(40, 512))
    curve = entropy_curve(scores, scale=0.7, rng=rng)
    assert curve.reference == 16
    assert curve.kept_scale[0] == pytest.approx(0.7, rel=1e-9)
    assert (np.diff(curve.kept_scale) > 0).all()
    assert (curve.low < curve.entropy).all()
    assert (curve.entropy < curve.high).all()


def test_the_kept_scale_keeps_the_entropy(rng):
    scores = rng.normal(size=(60, 1024))
    curve = entropy_curve(scores, [32, 1024], scale=1.5, rng=rng)
    full = entropy_of_scores(scores, curve.kept_scale[-1]).mean()  # all keys: nothing was drawn
    assert full == pytest.approx(curve.entropy[0], rel=1e-10)


def test_a_schedule_that_solves_for_the_scale_flattens_the_curve(rng):
    scores = rng.normal(size=(80, 2048))
    plain = entropy_curve(scores, scale=1.0, rng=np.random.default_rng(1))
    kept = dict(zip(plain.sizes.tolist(), plain.kept_scale.tolist(), strict=True))
    flat = entropy_curve(scores, scale=lambda n: kept[n], rng=np.random.default_rng(1))
    assert plain.slope.value > 0.9
    assert abs(flat.slope.value) < 1e-9


def test_the_exponent_is_that_of_the_scores(rng):
    # E H = H0 needs λ ∝ n for U[0, 1] (closed form log(n/λ) + 1), so log λ against log log n has
    # the slope of log n against log log n; for Exp(1) a constant λ does.
    sizes = [64, 256, 1024]
    x = np.log(np.log(sizes)) - np.log(np.log(sizes)).mean()
    expected = x @ np.log(sizes) / (x @ x)
    bounded = entropy_curve(rng.random((400, 1024)), sizes, scale=8.0, rng=rng).exponent
    assert bounded.low < expected < bounded.high
    flat = entropy_curve(rng.exponential(size=(400, 1024)), sizes, scale=2.0, rng=rng).exponent
    assert flat.low < 0.05
    assert flat.high < 0.5


def test_the_curve_of_a_head_uses_the_usual_scale(rng):
    q, k = rng.normal(size=(20, 16)), rng.normal(size=(128, 16))
    ours = entropy_curve_of_head(q, k, rng=np.random.default_rng(3))
    theirs = entropy_curve(q @ k.T, scale=0.25, rng=np.random.default_rng(3))
    np.testing.assert_array_equal(ours.entropy, theirs.entropy)


def test_a_curve_depends_on_the_generator_alone(rng):
    scores = rng.normal(size=(10, 100))
    a, b, c = (entropy_curve(scores, rng=np.random.default_rng(i)) for i in (7, 7, 8))
    np.testing.assert_array_equal(a.entropy, b.entropy)
    assert (a.entropy[:-1] != c.entropy[:-1]).any()


def test_intervals_of_the_slope_cover_the_truth(rng):
    # U[0, 1] at λ = 1: E H = log n - const up to terms of order 1/n, so the slope is 1 - O(1/n).
    hits = 0
    for _ in range(40):
        curve = entropy_curve(rng.random((25, 1024)), [64, 256, 1024], rng=rng)
        hits += curve.slope.low <= 1.0 <= curve.slope.high
    assert hits >= 32  # 95 % of 40 is 38; fewer than 32 has a probability below 1e-3


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"scores": np.zeros(8)}, ValueError, "`scores` must have shape"),
        ({"scores": np.zeros((0, 8))}, ValueError, "`scores` must not be empty"),
        ({"scores": np.full((2, 8), -np.inf)}, ValueError, "`scores` must be finite"),
        ({"scores": np.zeros((3, 2))}, ValueError, "`scores` must have at least 3 keys"),
        ({"sizes": [4]}, ValueError, "`sizes` must be at least 2 growing numbers"),
        ({"sizes": [4, 4]}, ValueError, "`sizes` must be"),
        ({"sizes": [4, 99]}, ValueError, "up to the 32 keys"),
        ({"sizes": [1, 8]}, ValueError, "`sizes` must be at least 2, got 1"),
        ({"sizes": [2.5, 8]}, TypeError, "`sizes` must be a whole number"),
        ({"scale": -1.0}, ValueError, "`scale` must not be negative"),
        ({"scale": lambda n: np.nan}, ValueError, "`scale` must be finite"),
        ({"reference": 5}, ValueError, "`reference` must be one of the sizes"),
        ({"repeats": 0}, ValueError, "`repeats` must be at least 1"),
        ({"level": 1.0}, ValueError, "`level` must lie strictly between 0 and 1"),
        ({"rng": 0}, TypeError, "`rng` must be a numpy.random.Generator"),
    ],
)
def test_curves_refuse_bad_input_by_name(options, error, message, rng):
    arguments = {"scores": rng.normal(size=(4, 32)), "rng": rng} | options
    with pytest.raises(error, match=message):
        entropy_curve(arguments.pop("scores"), **arguments)


def test_a_head_must_fit_together(rng):
    with pytest.raises(ValueError, match="`keys` must have the dimension of `queries`, 4"):
        entropy_curve_of_head(np.zeros((3, 4)), np.zeros((9, 5)), rng=rng)
    with pytest.raises(ValueError, match="`queries` must have shape"):
        entropy_curve_of_head(np.zeros(4), np.zeros((9, 4)), rng=rng)
