"""Softmax weights, their entropy, the floor under it and the gap between the two."""

import numpy as np
import pytest
import scipy.special
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lib.attention import (
    entropy,
    entropy_gap,
    entropy_of_scores,
    log_sum_exp,
    mean_field_entropy,
    score_mean,
    score_variance,
    softmax,
)

PER_SCORES = (
    softmax,
    log_sum_exp,
    entropy_of_scores,
    score_mean,
    score_variance,
    mean_field_entropy,
    entropy_gap,
)

score_rows = hnp.arrays(np.float64, st.integers(1, 40), elements=st.floats(-50, 50))
wild_rows = hnp.arrays(np.float64, st.integers(1, 20), elements=st.floats(-1e150, 1e150))
scales = st.floats(0, 30)


@pytest.fixture
def rng():
    return np.random.default_rng(20230216)


# --- softmax --------------------------------------------------------------------------------------


def test_softmax_agrees_with_scipy(rng):
    scores = rng.normal(size=(7, 5, 33)) * 10
    ours = softmax(scores, 0.7, axis=1)
    np.testing.assert_allclose(ours, scipy.special.softmax(0.7 * scores, axis=1), rtol=1e-13)


def test_softmax_at_scale_zero_is_uniform_over_the_visible_keys():
    np.testing.assert_array_equal(softmax([5.0, -np.inf, 1.0, 2.0], 0.0) * 3, [1, 0, 1, 1])


def test_softmax_at_infinite_scale_is_uniform_over_the_largest_scores():
    np.testing.assert_array_equal(softmax([3.0, 1.0, 3.0, -np.inf], np.inf), [0.5, 0, 0.5, 0])


def test_softmax_does_not_overflow():
    np.testing.assert_array_equal(softmax([1e300, -1e300, 0.0], 1e5), [1.0, 0.0, 0.0])


def test_scale_broadcasts_against_rows_not_keys(rng):
    scores = rng.normal(size=(4, 6))
    lams = np.array([0.0, 0.5, 2.0])
    weights = softmax(scores, lams[:, None])
    assert weights.shape == (3, 4, 6)
    for lam, got in zip(lams, weights, strict=True):
        np.testing.assert_array_equal(got, softmax(scores, lam))
    per_row = np.array([0.0, 0.5, 2.0, 9.0])
    one_each = softmax(scores, per_row)
    for row, lam, got in zip(scores, per_row, one_each, strict=True):
        np.testing.assert_allclose(got, softmax(row, lam), rtol=1e-15)


def test_the_keys_axis_stays_in_place_when_scales_add_axes(rng):
    scores = rng.normal(size=(6, 4))
    assert softmax(scores, np.ones((3, 1)), axis=0).shape == (3, 6, 4)


@given(score_rows, scales)
@settings(deadline=None)
def test_softmax_is_shift_invariant(scores, lam):
    np.testing.assert_allclose(softmax(scores + 16.0, lam), softmax(scores, lam), atol=1e-10)


def test_power_of_weights_is_a_change_of_scale(rng):
    scores = rng.normal(size=50)
    powered = softmax(scores) ** 1.7
    np.testing.assert_allclose(softmax(scores, 1.7), powered / powered.sum(), rtol=1e-13)


# --- entropy --------------------------------------------------------------------------------------


def test_entropy_agrees_with_scipy(rng):
    p = rng.dirichlet(np.full(20, 0.2), size=30)
    np.testing.assert_allclose(entropy(p), scipy.stats.entropy(p, axis=-1), rtol=1e-12)
    np.testing.assert_allclose(entropy(p.T, axis=0), entropy(p), rtol=1e-14)


def test_entropy_of_one_certain_key_is_zero_and_of_uniform_weights_log_n():
    assert entropy([0.0, 1.0, 0.0]) == 0.0
    assert entropy(np.full(8, 1 / 8)) == pytest.approx(np.log(8), rel=1e-15)


def test_entropy_takes_the_sums_that_single_and_half_precision_leave(rng):
    p = softmax(rng.normal(size=(5, 4096)))
    for dtype, tolerance in ((np.float32, 1e-5), (np.float16, 0.05)):
        np.testing.assert_allclose(entropy(p.astype(dtype)), entropy(p), rtol=tolerance)


@pytest.mark.parametrize(
    ("p", "message"),
    [
        ([0.5, 0.6], "`p` must sum to 1"),
        ([1.5, -0.5], "`p` must be finite and not negative"),
        ([np.nan, 1.0], "`p` must be finite"),
        ([], "`p` must not be empty"),
        (1.0, "`p` must have at least one axis"),
    ],
)
def test_entropy_refuses_what_is_no_distribution(p, message):
    with pytest.raises(ValueError, match=message):
        entropy(p)


def test_entropy_of_scores_agrees_with_entropy_of_weights(rng):
    scores = rng.normal(size=(40, 100)) * rng.choice([0.1, 1, 10], size=(40, 1))
    np.testing.assert_allclose(entropy_of_scores(scores), entropy(softmax(scores)), rtol=1e-11)


def test_entropy_of_scores_agrees_with_torch(rng):
    torch = pytest.importorskip("torch")
    scores = rng.normal(size=(10, 64)) * 5
    theirs = torch.distributions.Categorical(logits=torch.tensor(scores)).entropy()
    np.testing.assert_allclose(entropy_of_scores(scores), theirs.numpy(), rtol=1e-12)


def test_tiny_entropies_keep_their_digits():
    # Two keys with odds r = e^{-gap}: H = log(1+r) + gap r/(1+r), far below the rounding of p = 1.
    gap = np.array([40.0, 100.0, 700.0])
    r = np.exp(-gap)
    exact = np.log1p(r) + gap * r / (1 + r)
    np.testing.assert_allclose(entropy_of_scores([0.0, -1.0], gap), exact, rtol=1e-12)


def test_entropy_limits_are_log_n_and_log_of_the_number_of_maxima():
    scores = [2.0, 2.0, 1.0, -np.inf, 0.0]
    low, high = entropy_of_scores(scores, [0.0, np.inf])
    assert low == pytest.approx(np.log(4), rel=1e-15)
    assert high == pytest.approx(np.log(2), rel=1e-15)


def test_one_key_has_entropy_zero_at_every_scale():
    np.testing.assert_array_equal(entropy_of_scores([[3.0]], [0.0, 1.0, np.inf]), [0, 0, 0])


@given(score_rows, scales, scales)
@settings(deadline=None)
def test_entropy_falls_as_the_inverse_temperature_rises(scores, a, b):
    low, high = sorted((a, b))
    assert entropy_of_scores(scores, high) <= entropy_of_scores(scores, low) + 1e-12


@given(score_rows, scales, st.randoms(use_true_random=False))
@settings(deadline=None)
def test_entropy_does_not_depend_on_the_order_of_keys(scores, lam, random):
    order = list(range(len(scores)))
    random.shuffle(order)
    assert entropy_of_scores(scores[order], lam) == pytest.approx(
        entropy_of_scores(scores, lam), rel=1e-10, abs=1e-300
    )


@given(score_rows, scales)
@settings(deadline=None)
def test_a_hidden_key_changes_nothing(scores, lam):
    hidden = np.append(scores, -np.inf)
    for function in (entropy_of_scores, score_variance, mean_field_entropy, log_sum_exp):
        assert function(hidden, lam) == pytest.approx(function(scores, lam), rel=1e-10, abs=1e-12)
    np.testing.assert_array_equal(softmax(hidden, lam)[-1], 0.0)


@given(wild_rows, st.floats(0, 1e150))
@settings(deadline=None)
def test_entropy_stays_within_its_bounds_for_wild_scores(scores, lam):
    h = entropy_of_scores(scores, lam)
    assert 0 <= h <= np.log(len(scores)) + 1e-12


def test_the_slope_of_entropy_is_minus_scale_times_variance(rng):
    scores, lam, step = rng.normal(size=(20, 60)), 1.3, 1e-5
    rise = entropy_of_scores(scores, lam + step) - entropy_of_scores(scores, lam - step)
    np.testing.assert_allclose(rise / (2 * step), -lam * score_variance(scores, lam), rtol=1e-7)


def test_mean_and_variance_are_those_of_the_weights(rng):
    scores = rng.normal(size=(9, 30)) * 3 + 100
    p = softmax(scores, 0.8)
    mean = (p * scores).sum(-1)
    variance = (p * (scores - mean[:, None]) ** 2).sum(-1)
    np.testing.assert_allclose(score_mean(scores, 0.8), mean, rtol=1e-13)
    np.testing.assert_allclose(score_variance(scores, 0.8), variance, rtol=1e-11)


def test_log_sum_exp_agrees_with_scipy_and_its_slope_is_the_mean(rng):
    scores = rng.normal(size=(6, 25)) * 4
    np.testing.assert_allclose(
        log_sum_exp(scores, 2.0), scipy.special.logsumexp(2.0 * scores, axis=-1), rtol=1e-13
    )
    slope = (log_sum_exp(scores, 2 + 1e-5) - log_sum_exp(scores, 2 - 1e-5)) / 2e-5
    np.testing.assert_allclose(slope, score_mean(scores, 2.0), rtol=1e-7)
    assert log_sum_exp([0.0, 0.0, -1.0], np.inf) == pytest.approx(np.log(2))
    assert log_sum_exp([1.0, 0.0], np.inf) == np.inf


# --- the floor and the gap ------------------------------------------------------------------------


@given(wild_rows | score_rows, st.floats(0, 1e6))
@settings(max_examples=300, deadline=None)
def test_the_floor_is_never_above_the_entropy(scores, lam):
    floor = mean_field_entropy(scores, lam)
    assert floor <= entropy_of_scores(scores, lam) + 1e-9 * max(1.0, np.log(len(scores)))


def test_the_floor_is_the_formula_of_the_article():
    scores = np.array([1.0, 2.0, 6.0])
    assert mean_field_entropy(scores, 0.1) == pytest.approx(np.log(3) - 0.1 * (6 - 3), rel=1e-15)
    assert mean_field_entropy(scores, np.inf) == -np.inf
    assert mean_field_entropy([4.0, 4.0], np.inf) == pytest.approx(np.log(2))


@given(score_rows, scales)
@settings(deadline=None)
def test_the_gap_is_entropy_minus_floor_and_both_parts_are_not_negative(scores, lam):
    gap = entropy_gap(scores, lam)
    assert gap.divergence >= 0
    assert gap.shortfall >= 0
    difference = entropy_of_scores(scores, lam) - mean_field_entropy(scores, lam)
    assert gap.total == pytest.approx(difference, rel=1e-9, abs=1e-11)


def test_the_divergence_is_that_of_uniform_weights_from_softmax(rng):
    scores = rng.normal(size=64) * 2
    for lam in (0.3, 1.0, 5.0):
        expected = scipy.stats.entropy(np.full(64, 1 / 64), softmax(scores, lam))
        assert entropy_gap(scores, lam).divergence == pytest.approx(expected, rel=1e-10)


def test_the_divergence_keeps_its_digits_near_uniform_weights():
    # log mean exp(λ(s - mean s)) = λ² Var / 2 to leading order; H alone has lost it at λ = 1e-9.
    got = entropy_gap([0.0, 1.0, 2.0], 1e-9)
    assert got.divergence == pytest.approx(1e-18 * (2 / 3) / 2, rel=1e-8, abs=0)
    assert got.shortfall == pytest.approx(1e-9, rel=1e-8, abs=0)


def test_the_gap_has_its_limits():
    gap = entropy_gap([0.0, 1.0, 1.0, -np.inf], [0.0, np.inf])
    np.testing.assert_array_equal(gap.divergence, [0.0, np.inf])
    np.testing.assert_array_equal(gap.shortfall, [0.0, 0.0])
    assert entropy_gap([1.0, 1.0], np.inf) == (0.0, 0.0)


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", PER_SCORES)
@pytest.mark.parametrize(
    ("scores", "error", "message"),
    [
        ([], ValueError, "`scores` must not be empty"),
        (np.zeros((0, 4)), ValueError, "`scores` must not be empty"),
        (3.0, ValueError, "`scores` must have at least one axis"),
        ([0.0, np.nan], ValueError, "`scores` must not hold NaN"),
        ([0.0, np.inf], ValueError, r"`scores` must be finite, or -inf .* got \+inf"),
        ([-np.inf, -np.inf], ValueError, "`scores` must leave at least one key visible"),
        ([[0.0, 1.0], [-np.inf, -np.inf]], ValueError, "got none in row 1"),
        ([1e308, -1e308], ValueError, "`scores` must span less than the largest float"),
        ([[1.0, 2.0], [3.0]], ValueError, "`scores` must be a rectangular array"),
        ([1j, 2.0], TypeError, "`scores` must hold real numbers, got dtype complex"),
        (["a", "b"], TypeError, "`scores` must hold real numbers"),
        ([True, False], TypeError, "`scores` must hold real numbers, got dtype bool"),
        (np.array([None, 1]), TypeError, "`scores` must hold real numbers, got dtype object"),
    ],
)
def test_bad_scores_are_refused_by_name(function, scores, error, message):
    with pytest.raises(error, match=message):
        function(scores)


@pytest.mark.parametrize("function", PER_SCORES)
@pytest.mark.parametrize(
    ("scale", "error", "message"),
    [
        (-1.0, ValueError, r"`scale` must lie in \[0, inf\], got -1.0"),
        (np.nan, ValueError, r"`scale` must lie in \[0, inf\], got nan"),
        ([1.0, 2.0, 3.0], ValueError, r"`scale` must broadcast against the rows"),
        ([], ValueError, "`scale` must not be empty"),
        ("sqrt_d", TypeError, "`scale` must hold real numbers"),
        (1j, TypeError, "`scale` must hold real numbers"),
    ],
)
def test_bad_scales_are_refused_by_name(function, scale, error, message):
    with pytest.raises(error, match=message):
        function(np.zeros((2, 5)), scale)


@pytest.mark.parametrize("function", PER_SCORES)
@pytest.mark.parametrize(("axis", "error"), [(2, ValueError), (-3, ValueError), (0.5, TypeError)])
def test_a_bad_axis_is_refused_by_name(function, axis, error):
    with pytest.raises(error, match="`axis` must"):
        function(np.zeros((2, 5)), axis=axis)


def test_integers_and_single_precision_are_promoted():
    assert softmax([1, 2, 3]).dtype == np.float64
    assert entropy_of_scores(np.zeros(4, dtype=np.float16)) == pytest.approx(np.log(4), rel=1e-15)


def test_tensors_are_taken_detached():
    torch = pytest.importorskip("torch")
    for dtype in (torch.float32, torch.bfloat16):
        scores = torch.tensor([0.0, 1.0, 2.0], dtype=dtype, requires_grad=True)
        assert entropy_of_scores(scores) == pytest.approx(entropy_of_scores([0, 1, 2]), rel=1e-12)


def test_inputs_are_not_changed(rng):
    scores = rng.normal(size=(3, 8))
    before = scores.copy()
    for function in PER_SCORES:
        function(scores, 0.0)
        function(scores, np.inf)
    np.testing.assert_array_equal(scores, before)
