"""Distances against closed forms, SciPy, and their own intervals; "noisy" and "diverse" defined."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch
from scipy import linalg, stats
from scipy.spatial.distance import cdist

from lib.data.digits import digits, digits_split
from lib.diffusion.metrics import (
    DigitFeatures,
    Estimate,
    _mean_of_pairs,
    diversity,
    energy_distance,
    feature_frechet,
    floor,
    frechet_distance,
    gaussian_frechet,
    high_frequency_energy,
    mean_estimate,
    mmd,
    nearest_distance,
    sliced_wasserstein,
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(n: int, d: int, seed: int = 0, *, shift: float = 0.0, scale: float = 1.0):
    return shift + scale * np.random.default_rng(seed).standard_normal((n, d))


def sliced(a, b, **settings) -> float:
    return sliced_wasserstein(a, b, seeded(), **settings).value


def sliced_estimate(a, b, **settings) -> Estimate:
    """With the same directions each time."""
    return sliced_wasserstein(a, b, **{"generator": seeded()} | settings)


def identity(x):
    return torch.as_tensor(x).detach().numpy().reshape(len(x), -1)


DISTANCES = [
    pytest.param(sliced_estimate, id="sliced_wasserstein"),
    pytest.param(energy_distance, id="energy_distance"),
    pytest.param(partial(mmd, bandwidth=2.0), id="mmd"),
    pytest.param(frechet_distance, id="frechet_distance"),
    pytest.param(partial(feature_frechet, features=identity), id="feature_frechet"),
]


# --- what all distances of two samples share ------------------------------------------------------


@pytest.mark.parametrize("distance", DISTANCES)
def test_a_distance_is_symmetric_and_grows_with_a_shift(distance):
    a, b = normal(300, 3), normal(200, 3, seed=1)
    near, far = (distance(a, b + shift).value for shift in (0.5, 1.5))
    assert near < far
    assert distance(b, a).value == pytest.approx(distance(a, b).value)


@pytest.mark.parametrize("distance", DISTANCES)
def test_tensors_and_images_count_as_rows_of_numbers(distance):
    a, b = normal(30, 16), normal(30, 16, seed=1)
    images = torch.from_numpy(a).float().requires_grad_().view(30, 1, 4, 4)
    assert distance(images, b).value == pytest.approx(distance(a, b).value, rel=1e-5)


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize(
    ("a", "b", "error", "message"),
    [
        (np.full((4, 2), np.nan), np.zeros((4, 2)), ValueError, "`a` must be finite, got nan"),
        (np.zeros((4, 2)), np.full((4, 2), np.inf), ValueError, "`b` must be finite, got inf"),
        (np.zeros((1, 2)), np.zeros((4, 2)), ValueError, "`a` must hold at least 2 samples, got 1"),
        (np.zeros((4, 2)), np.zeros((0, 2)), ValueError, r"`b` must have shape .* got \(0, 2\)"),
        (np.array(["x", "y"]), np.zeros((4, 2)), TypeError, "`a` must hold real numbers"),
        (np.zeros((4, 2)), np.zeros((4, 3)), ValueError, "`b` must have 2 numbers each .* got 3"),
    ],
)
def test_senseless_samples_are_an_error_that_names_them(distance, a, b, error, message):
    with pytest.raises(error, match=message):
        distance(a, b)


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"bootstrap": -1}, ValueError, "`bootstrap` must be at least 0, got -1"),
        ({"bootstrap": 1}, ValueError, "`bootstrap` must be 0 or at least 2, got 1"),
        ({"bootstrap": 2.5}, TypeError, "`bootstrap` must be a whole number, got 2.5"),
        ({"bootstrap": 9, "level": 1.0}, ValueError, "`level` must lie strictly between 0 and 1"),
        ({"bootstrap": 9, "generator": 3}, TypeError, r"`generator` must be a torch\.Generator"),
    ],
)
def test_a_senseless_interval_is_an_error_that_names_the_setting(
    distance, settings, error, message
):
    with pytest.raises(error, match=message):
        distance(normal(9, 2), normal(9, 2, seed=1), **{"generator": seeded()} | settings)


@pytest.mark.parametrize("distance", DISTANCES)
def test_no_interval_is_given_unless_asked_for(distance):
    got = distance(normal(9, 2), normal(9, 2, seed=1))
    assert math.isnan(got.low)
    assert math.isnan(got.high)
    assert float(got) == got.value


@pytest.mark.parametrize("distance", DISTANCES)
def test_intervals_have_the_width_that_repeating_the_experiment_shows(distance):
    """95 % intervals: half of one is 1.96 deviations of the estimate over fresh samples."""
    values, halves = [], []
    for k in range(120):
        a, b = normal(60, 2, seed=2 * k), normal(80, 2, seed=2 * k + 1, shift=1.0, scale=1.5)
        got = distance(a, b, bootstrap=40, generator=seeded(k))
        assert got.low <= got.value <= got.high
        values.append(got.value)
        halves.append(got.high - got.value)
    assert np.mean(halves) / (1.96 * np.std(values)) == pytest.approx(1.0, abs=0.25)


def test_a_wider_level_gives_a_wider_interval_around_the_same_value():
    a, b = normal(50, 2), normal(50, 2, seed=1, shift=1.0)
    narrow, wide = (
        energy_distance(a, b, bootstrap=50, level=level, generator=seeded())
        for level in (0.5, 0.99)
    )
    assert narrow.value == wide.value
    ratio = (wide.high - wide.value) / (narrow.high - narrow.value)
    assert ratio == pytest.approx(2.5758 / 0.6745, rel=1e-3)


# --- sliced Wasserstein ---------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [(50, 50), (50, 70), (3, 100), (8, 4)])
def test_in_one_dimension_it_is_scipys_wasserstein_distance(sizes):
    a, b = normal(sizes[0], 1), normal(sizes[1], 1, seed=1, shift=0.7, scale=2.0)
    wanted = stats.wasserstein_distance(a[:, 0], b[:, 0])
    assert sliced(a, b, order=1) == pytest.approx(wanted)


@pytest.mark.parametrize("order", [1.0, 2.0, 3.0])
def test_repeating_each_point_of_a_sample_changes_nothing(order):
    a, b = normal(12, 3), normal(30, 3, seed=1)
    wanted = sliced(a, b, order=order)
    assert sliced(np.repeat(a, 5, axis=0), b, order=order) == pytest.approx(wanted)
    assert sliced(a, np.repeat(b, 2, axis=0), order=order) == pytest.approx(wanted)


def test_between_gaussians_it_is_the_closed_form():
    """W_2² along θ is (θ·m)² + (s - 1)², and the mean of (θ·m)² over directions is |m|²/d."""
    a, b = normal(20_000, 3), normal(20_000, 3, seed=1, shift=0.8, scale=1.5)
    wanted = math.sqrt(3 * 0.8**2 / 3 + 0.5**2)
    assert sliced(a, b, projections=500) == pytest.approx(wanted, rel=0.04)


def test_a_shift_in_one_dimension_is_its_own_distance_at_every_order():
    a = normal(40, 1)
    for order in (1.0, 2.0, 4.0):
        assert sliced(a, a + 3.0, order=order) == pytest.approx(3.0)


def test_directions_are_unit_vectors_in_every_direction():
    point, origin = np.array([[3.0, 4.0]] * 2), np.zeros((2, 2))
    assert sliced(point, origin, projections=20_000) == pytest.approx(5 / math.sqrt(2), rel=0.01)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"projections": 0}, ValueError, "`projections` must be at least 1, got 0"),
        ({"order": 0.5}, ValueError, r"`order` must lie in \[1, inf\], got 0.5"),
        ({"generator": None}, TypeError, r"`generator` must be a torch\.Generator"),
    ],
)
def test_senseless_settings_of_sliced_wasserstein_are_errors(settings, error, message):
    with pytest.raises(error, match=message):
        sliced_wasserstein(normal(5, 2), normal(5, 2), **{"generator": seeded()} | settings)


# --- energy distance and MMD ----------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [(50, 50), (30, 70)])
def test_the_biased_energy_distance_is_the_square_of_scipys(sizes):
    a, b = normal(sizes[0], 1), normal(sizes[1], 1, seed=1, shift=0.7)
    wanted = stats.energy_distance(a[:, 0], b[:, 0]) ** 2
    assert energy_distance(a, b, unbiased=False).value == pytest.approx(wanted)


def repeated(distance, n: int, **shift) -> np.ndarray:
    return np.array(
        [
            distance(normal(n, 3, seed=2 * k), normal(n, 3, seed=2 * k + 1, **shift)).value
            for k in range(300)
        ]
    )


def within(values: np.ndarray, wanted: float) -> bool:
    return abs(values.mean() - wanted) < 4.5 * values.std() / math.sqrt(len(values))


@pytest.mark.parametrize("distance", [energy_distance, partial(mmd, bandwidth=1.5)])
def test_unbiased_distances_are_0_on_average_for_equal_distributions(distance):
    assert within(repeated(distance, 12), 0.0)
    assert not within(repeated(partial(distance, unbiased=False), 12), 0.0)


def test_copies_of_a_point_in_a_resample_are_no_pair():
    kernel = cdist(normal(4, 2), normal(4, 2)) + np.diag([9.0, 8.0, 7.0, 6.0])
    counts = np.array([[2.0, 0.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0]])
    drawn = ([0, 0, 2, 3], [0, 1, 2, 3])
    pairs = [[kernel[i, j] for i in rows for j in rows if i != j] for rows in drawn]
    np.testing.assert_allclose(
        _mean_of_pairs(kernel, counts, unbiased=True), [np.mean(p) for p in pairs]
    )
    biased = [kernel[np.ix_(rows, rows)].mean() for rows in drawn]
    np.testing.assert_allclose(_mean_of_pairs(kernel, counts, unbiased=False), biased)


def test_the_energy_distance_of_gaussians_is_the_closed_form():
    """E|x - y| of two 3-d normals with variance v of the difference, and no shift: √(8 v/π)."""
    wanted = 2 * math.sqrt(8 * 5 / math.pi) - math.sqrt(8 * 2 / math.pi) * (1 + 2)
    assert within(repeated(energy_distance, 12, scale=2.0), wanted)


def test_the_mmd_of_gaussians_is_the_closed_form():
    """E k of a difference N(m, v I) is (h²/(h² + v))^(d/2) exp(-|m|²/2(h² + v))."""
    h2, shift = 1.5**2, 0.9

    def mean_kernel(v: float, square: float = 0.0) -> float:
        return (h2 / (h2 + v)) ** 1.5 * math.exp(-0.5 * square / (h2 + v))

    wanted = mean_kernel(2.0) + mean_kernel(2 * 1.3**2)
    wanted -= 2 * mean_kernel(1 + 1.3**2, 3 * shift**2)
    distance = partial(mmd, bandwidth=1.5)
    assert within(repeated(distance, 12, shift=shift, scale=1.3), wanted)


def test_the_default_bandwidth_is_the_median_distance():
    a, b = normal(20, 2), normal(30, 2, seed=1)
    together = np.concatenate([a, b])
    median = np.median(cdist(together, together)[np.triu_indices(50, 1)])
    assert mmd(a, b).value == pytest.approx(mmd(a, b, median).value)


@pytest.mark.parametrize("bandwidth", [0.0, -1.0])
def test_a_bandwidth_that_is_not_positive_is_an_error(bandwidth):
    with pytest.raises(ValueError, match="`bandwidth` must be positive, got"):
        mmd(normal(5, 2), normal(5, 2), bandwidth)


def test_equal_points_leave_no_default_bandwidth():
    with pytest.raises(ValueError, match="`bandwidth` must be given: more than half of all"):
        mmd(np.zeros((5, 2)), np.zeros((5, 2)))


# --- Fréchet --------------------------------------------------------------------------------------


def covariance(d: int, rank: int, seed: int) -> np.ndarray:
    root = normal(d, rank, seed)
    return root @ root.T


@pytest.mark.parametrize("ranks", [(6, 6), (6, 3), (2, 3)])
def test_the_frechet_distance_agrees_with_the_matrix_square_root(ranks):
    s, r = (covariance(6, rank, seed) for seed, rank in enumerate(ranks))
    m, n = normal(6, 1, 8)[:, 0], normal(6, 1, 9)[:, 0]
    ridge = 1e-12 * np.eye(6)  # sqrtm needs one where covariances are singular
    root = linalg.sqrtm((s + ridge) @ (r + ridge)).real
    wanted = ((m - n) ** 2).sum() + np.trace(s + r - 2 * root)
    assert gaussian_frechet(m, s, n, r) == pytest.approx(wanted, rel=1e-4)


def test_for_covariances_that_commute_it_is_the_distance_of_deviations():
    s, r = np.diag([4.0, 0.0, 1.0]), np.diag([1.0, 9.0, 1.0])
    wanted = 5.0**2 + (2 - 1) ** 2 + 3**2
    assert gaussian_frechet([3, 0, 0], s, [0, 4, 0], r) == pytest.approx(wanted)


def test_the_same_singular_gaussian_has_distance_0():
    s = covariance(50, 3, 0)
    assert gaussian_frechet(np.ones(50), s, np.ones(50), s) < 1e-12 * np.trace(s)


def test_shifted_copies_are_as_far_apart_as_the_shift():
    a = normal(40, 5)
    assert frechet_distance(a, a + 2.0).value == pytest.approx(5 * 4.0)


def test_the_frechet_distance_of_samples_takes_their_unbiased_covariances():
    a, b = normal(7, 3), normal(9, 3, seed=1)
    wanted = gaussian_frechet(a.mean(0), np.cov(a.T), b.mean(0), np.cov(b.T))
    assert frechet_distance(a, b).value == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mean_b": [0.0]}, r"`mean_b` must have shape \(2,\) as `mean_a`, got \(1,\)"),
        ({"covariance_a": np.eye(3)}, r"`covariance_a` must have shape \(2, 2\), got \(3, 3\)"),
        ({"covariance_b": -np.eye(2)}, "`covariance_b` must be symmetric positive semi-definite"),
        ({"covariance_b": [[1, 1], [0, 1]]}, "`covariance_b` must be symmetric positive"),
        ({"mean_a": [0.0, math.nan]}, "`mean_a` must be finite, got nan"),
    ],
)
def test_what_is_no_gaussian_is_an_error(change, message):
    arguments = {
        "mean_a": [0.0, 0.0],
        "covariance_a": np.eye(2),
        "mean_b": [0.0, 0.0],
        "covariance_b": np.eye(2),
    }
    with pytest.raises(ValueError, match=message):
        gaussian_frechet(**arguments | change)


def test_the_floor_of_a_frechet_distance_falls_as_3_over_n():
    """In one dimension (m - m')² has mean 2/n and (s - s')² mean 1/n, to leading order."""
    data = normal(20_000, 1)
    for size in (50, 200):
        got = floor(frechet_distance, data, seeded(), size=size, repeats=400)
        assert got.value == pytest.approx(3 / size, rel=0.2)
        assert got.low < got.value < got.high


def test_the_parts_of_a_floor_are_disjoint_random_parts_of_the_size_asked_for():
    seen = []

    def count(a, b):
        seen.append((set(a[:, 0]), set(b[:, 0])))
        return 1.0

    data = np.arange(11.0)[:, None]
    assert floor(count, data, seeded(), repeats=3) == Estimate(1.0, 1.0, 1.0)
    floor(count, data, seeded(), size=2, repeats=1)
    assert [len(a) for a, _ in seen] == [5, 5, 5, 2]
    assert all(not a & b and len(a) == len(b) for a, b in seen)
    assert len({frozenset(a) for a, _ in seen}) == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": 6}, "`size` must be from 2 to 5, got 6"),
        ({"size": 1}, "`size` must be from 2 to 5, got 1"),
        ({"repeats": 0}, "`repeats` must be at least 1, got 0"),
        ({"data": np.zeros((3, 1))}, "`data` must hold at least 4 samples, got 3"),
        ({"level": 0.0}, "`level` must lie strictly between 0 and 1, got 0"),
    ],
)
def test_a_senseless_floor_is_an_error(change, message):
    arguments = {"distance": frechet_distance, "data": normal(10, 1), "generator": seeded()}
    with pytest.raises(ValueError, match=message):
        floor(**arguments | change)


# --- features of digits ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def halves():
    return digits_split(np.random.default_rng(0), test_share=0.5)


@pytest.fixture(scope="module")
def features(halves) -> DigitFeatures:
    return DigitFeatures.train(halves[0].images, halves[0].labels, generator=seeded())


def test_the_classifier_knows_digits_that_it_was_not_trained_on(features, halves):
    probabilities = features.probabilities(halves[1].images)
    np.testing.assert_allclose(probabilities.sum(1), 1.0)
    assert (probabilities.argmax(1) == halves[1].labels).mean() > 0.95


def test_features_have_a_total_variance_of_100_on_their_training_images(features, halves):
    seen = features(halves[0].images)
    assert seen.shape == (len(halves[0]), 64)
    assert seen.dtype == np.float64
    assert seen.var(0, ddof=1).sum() == pytest.approx(100.0, rel=1e-5)


def test_features_are_the_hidden_layer_that_the_classifier_reads(features, halves):
    images = torch.tensor(halves[1].channels)
    hidden = features(images) / features.scale
    logits = hidden @ features.readout.double().numpy() + features.readout_bias.numpy()
    share = np.exp(logits - logits.max(1, keepdims=True))
    np.testing.assert_allclose(
        features.probabilities(images), share / share.sum(1, keepdims=True), atol=1e-5
    )


def test_the_same_generator_gives_the_same_features_and_touches_no_global_seed(halves):
    before = torch.get_rng_state()
    one, same, other = (
        DigitFeatures.train(halves[0].flat, halves[0].labels, generator=seeded(s), steps=5)
        for s in (0, 0, 1)
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one.weight, same.weight)
    assert not torch.equal(one.weight, other.weight)


def test_real_digits_are_near_real_ones_and_everything_else_is_far(features, halves):
    first, second = halves
    noise = np.random.default_rng(0).standard_normal(first.images.shape)
    distance = partial(feature_frechet, features=features)
    real = distance(first.images, second.images).value
    assert real < 2.0
    assert distance(first.images + 0.3 * noise, second.images).value > 2 * real
    assert distance(first.images[:, ::-1], second.images).value > 10 * real
    assert distance(noise, second.images).value > 50 * real
    one_label = first.images[first.labels == 3]
    assert distance(one_label, second.images).value > 10 * real


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"labels": np.zeros(3)}, ValueError, "`labels` must hold 20 numbers, got 3"),
        (
            {"labels": np.full(20, 0.5)},
            ValueError,
            "`labels` must be whole numbers from 0, got 0.5",
        ),
        ({"labels": np.full(20, -1)}, ValueError, "`labels` must be whole numbers from 0, got -1"),
        ({"images": np.full((20, 4), np.nan)}, ValueError, "`images` must be finite, got nan"),
        ({"images": np.zeros((20, 4))}, ValueError, "`images` must differ from each other"),
        ({"width": 0}, ValueError, "`width` must be at least 1, got 0"),
        ({"steps": 0}, ValueError, "`steps` must be at least 1, got 0"),
        ({"generator": 0}, TypeError, r"`generator` must be a torch\.Generator"),
    ],
)
def test_a_classifier_that_cannot_be_trained_is_an_error(change, error, message):
    arguments = {
        "images": normal(20, 4),
        "labels": np.arange(20) % 3,
        "generator": seeded(),
        "steps": 2,
    }
    with pytest.raises(error, match=message):
        DigitFeatures.train(**arguments | change)


def test_images_of_another_size_are_an_error(features):
    with pytest.raises(ValueError, match="`images` must have 64 numbers each, got 49"):
        features(np.zeros((3, 7, 7)))


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        (lambda x: np.zeros(len(x)), ValueError, r"`features\(a\)` must have shape \(4, k\), got"),
        (lambda x: np.zeros((1, 2)), ValueError, r"`features\(a\)` must have shape \(4, k\), got"),
        (lambda x: np.full((len(x), 2), np.nan), ValueError, r"`features\(a\)` must be finite"),
        ("hidden", TypeError, "`features` must be a function, got str"),
    ],
)
def test_features_that_are_none_are_an_error(wrong, error, message):
    with pytest.raises(error, match=message):
        feature_frechet(np.zeros((4, 2)), np.zeros((4, 2)), wrong)


# --- one sample -----------------------------------------------------------------------------------


def test_the_diversity_of_a_gaussian_is_the_closed_form():
    values = [diversity(normal(30, 1, seed=k)).value for k in range(300)]
    assert within(np.array(values), 2 / math.sqrt(math.pi))


def test_diversity_forgets_where_the_samples_lie_and_copies_have_none():
    x = normal(30, 3)
    assert diversity(x + 7.0).value == pytest.approx(diversity(x).value)
    assert diversity(2.0 * x).value == pytest.approx(2 * diversity(x).value)
    assert diversity(np.ones((5, 3))).value == 0.0


def test_diversity_is_measured_in_the_features_given():
    x = normal(30, 3)
    assert diversity(x, lambda x: 10 * x[:, :1]).value == pytest.approx(
        10 * diversity(x[:, :1]).value
    )


def test_the_interval_of_diversity_is_that_of_repeated_experiments():
    got = [diversity(normal(60, 2, seed=k), bootstrap=40, generator=seeded(k)) for k in range(120)]
    half = np.mean([one.high - one.value for one in got])
    assert half / (1.96 * np.std([one.value for one in got])) == pytest.approx(1.0, abs=0.25)


def wave(fy: int, fx: int, n: int = 8) -> np.ndarray:
    """A cosine of fy and fx half periods over the image."""
    place = (np.arange(n) + 0.5) * math.pi / n
    return np.cos(fy * place)[:, None] * np.cos(fx * place)


@pytest.mark.parametrize(
    ("fy", "fx", "high"), [(1, 0, 0), (0, 4, 0), (4, 1, 1), (3, 3, 1), (2, 3, 0), (7, 7, 1)]
)
def test_a_wave_is_high_where_its_frequency_exceeds_the_cutoff(fy, fx, high):
    """f = k / 2N: at N = 8 the default ¼ cycle per pixel lies at √(fy² + fx²) = 4."""
    assert high_frequency_energy(wave(fy, fx)[None])[0] == pytest.approx(high, abs=1e-12)


def test_waves_share_the_energy_by_their_squares_and_brightness_and_contrast_do_not_count():
    image = 2 * wave(1, 1) + wave(6, 6)
    shares = high_frequency_energy(np.stack([image, 5.0 + image, -3.0 * image]))
    np.testing.assert_allclose(shares, 1 / 5)


def test_white_noise_has_the_share_of_the_frequencies_above_and_a_flat_image_none():
    noise = np.random.default_rng(0).standard_normal((20_000, 8, 8))
    assert high_frequency_energy(noise).mean() == pytest.approx(47 / 63, abs=0.003)
    assert high_frequency_energy(np.full((2, 8, 8), 0.3)).tolist() == [0.0, 0.0]


def test_noise_raises_the_share_of_real_digits_and_a_blur_lowers_it():
    images = digits().images[:200].astype(np.float64)
    noise = np.random.default_rng(0).standard_normal(images.shape)
    blurred = (images + np.roll(images, 1, axis=1) + np.roll(images, 1, axis=2)) / 3
    noisy, plain, smooth = (
        high_frequency_energy(x).mean() for x in (images + 0.3 * noise, images, blurred)
    )
    assert smooth < 0.8 * plain
    assert noisy > 1.1 * plain


def test_channels_and_the_cutoff_count_as_they_should():
    image = np.stack([wave(1, 1), wave(6, 6)])[None]  # one image of two channels
    assert high_frequency_energy(image)[0] == pytest.approx(0.5)
    assert high_frequency_energy(image, cutoff=0.0)[0] == pytest.approx(1.0)
    assert high_frequency_energy(image, cutoff=1.0)[0] == 0.0


def test_images_need_two_sides():
    with pytest.raises(ValueError, match=r"`images` must have shape \(n, …, H, W\), got \(3, 64\)"):
        high_frequency_energy(np.zeros((3, 64)))
    with pytest.raises(ValueError, match=r"`cutoff` must lie in \[0, inf\], got -1"):
        high_frequency_energy(np.zeros((3, 8, 8)), cutoff=-1.0)


def test_the_nearest_distance_is_the_smallest_of_all():
    a, b = normal(20, 5), normal(30, 5, seed=1)
    np.testing.assert_allclose(nearest_distance(a, b), cdist(a, b).min(1))
    assert nearest_distance(b[3:5], b).tolist() == [0.0, 0.0]
    np.testing.assert_allclose(
        nearest_distance(a, b, lambda x: x[:, :2]), cdist(a[:, :2], b[:, :2]).min(1)
    )


def test_one_sample_is_enough_for_what_looks_at_each_alone():
    assert nearest_distance(np.zeros((1, 2)), np.ones((1, 2))).tolist() == [math.sqrt(2)]
    assert high_frequency_energy(wave(1, 1)[None]).shape == (1,)
    with pytest.raises(ValueError, match="`samples` must hold at least 2 samples, got 1"):
        diversity(np.zeros((1, 2)))


def test_data_of_another_dimension_are_an_error():
    with pytest.raises(ValueError, match="`data` must have 3 numbers each as `samples`, got 2"):
        nearest_distance(np.zeros((4, 3)), np.zeros((4, 2)))


def test_the_interval_of_a_mean_is_students():
    values = [1.0, 2.0, 4.0, 9.0]
    got = mean_estimate(values, level=0.9)
    low, high = stats.t.interval(0.9, 3, loc=4.0, scale=stats.sem(values))
    assert (got.value, got.low, got.high) == pytest.approx((4.0, low, high))
    with pytest.raises(ValueError, match="`values` must hold at least 2 numbers, got 1"):
        mean_estimate([1.0])
