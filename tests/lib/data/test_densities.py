"""Plane densities: exact standardising, and the shapes they promise."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lib.data.densities import Density, letters, moons, picture, rings, spiral

EVERY = [
    rings(),
    rings([1.0], thickness=0.0),
    rings([0.5, 4.0], thickness=0.7),
    spiral(),
    spiral(arms=1, turns=1.3),
    spiral(arms=3, turns=0.4, thickness=1.5),
    moons(),
    moons(thickness=0.6),
    picture([[0.0, 3.0, 0.0], [1.0, 0.0, 0.5]]),
    picture(np.eye(4), thickness=2.0),
    letters("ab"),
    letters("Σ", thickness=5.0),
]


def points(density: Density, n: int = 4000, seed: int = 0) -> np.ndarray:
    return density.sample(n, np.random.default_rng(seed))


def raw(density: Density, n: int = 4000) -> np.ndarray:
    """Before standardising."""
    return points(density, n) * density.spread + density.centre


@pytest.mark.parametrize("density", EVERY, ids=lambda d: d.name)
def test_mean_is_0_and_mean_variance_1_by_the_exact_moments(density):
    x = points(density, 200_000)
    assert x.dtype == np.float64
    error = x.std(0) / math.sqrt(len(x))
    assert (abs(x.mean(0)) < 5 * error).all()
    power = (x**2).sum(1)
    assert abs(power.mean() - 2.0) < 5 * power.std() / math.sqrt(len(x))


@pytest.mark.parametrize("density", EVERY[::3], ids=lambda d: d.name)
def test_the_same_generator_gives_the_same_points(density):
    assert np.array_equal(points(density, 10), points(density, 10))
    assert not np.array_equal(points(density, 10), points(density, 10, seed=1))


def test_one_point_is_a_sample_too():
    assert points(moons(), 1).shape == (1, 2)


def test_rings_have_their_radii_and_more_points_where_they_are_longer():
    x = np.linalg.norm(raw(rings([1.0, 3.0], thickness=0.0), 40_000), axis=1)
    np.testing.assert_allclose(np.unique(x.round(9)), [1.0, 3.0])
    assert (x > 2).mean() == pytest.approx(0.75, abs=0.01)


def test_a_blur_has_its_thickness_in_every_direction():
    x = raw(rings([5.0], thickness=0.2), 40_000)
    radius = np.linalg.norm(x, axis=1)
    assert radius.std() == pytest.approx(0.2, rel=0.03)


@pytest.mark.parametrize("arms", [1, 2, 3])
def test_points_of_a_spiral_have_a_radius_equal_to_their_angle(arms):
    x = raw(spiral(turns=2.0, arms=arms, thickness=0.0))
    radius, angle = np.linalg.norm(x, axis=1), np.arctan2(x[:, 1], x[:, 0])
    arm = (angle - radius) / (2 * math.pi / arms)
    np.testing.assert_allclose(arm, arm.round(), atol=1e-9)
    assert radius.min() > 0.5 * math.pi
    assert radius.max() < 4.5 * math.pi
    assert len(np.unique(arm.round() % arms)) == arms


def test_moons_are_two_half_circles():
    x = raw(moons(thickness=0.0))
    upper = abs(np.linalg.norm(x, axis=1) - 1) < 1e-9
    lower = abs(np.linalg.norm(x - [1.0, 0.5], axis=1) - 1) < 1e-9
    assert (upper | lower).all()
    assert upper.mean() == pytest.approx(0.5, abs=0.03)
    assert x[upper, 1].min() >= 0.0
    assert x[lower, 1].max() <= 0.5


def test_a_pixel_is_as_likely_as_it_is_bright_and_the_first_row_is_on_top():
    x = raw(picture([[0.0, 3.0], [1.0, 0.0]]), 40_000)
    top = x[:, 1] > 0.5
    assert top.mean() == pytest.approx(0.75, abs=0.01)
    assert (x[top, 0] > 0.5).all()
    assert (x[~top, 0] < 0.5).all()


def test_points_fill_their_pixel_evenly():
    x = raw(picture([[1.0]]), 40_000)
    assert (abs(x) <= 0.5).all()
    np.testing.assert_allclose(x.var(0), 1 / 12, rtol=0.03)


@settings(max_examples=40, deadline=None)
@given(
    hnp.arrays(
        np.float64,
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=6),
        elements=st.floats(0.0, 10.0) | st.just(0.0),
    ).filter(lambda grey: grey.sum() > 1e-3)
)
def test_moments_of_a_picture_are_those_of_its_pixels(grey):
    density = picture(grey)
    share = grey / grey.sum()
    rows, columns = grey.shape
    x, y = np.meshgrid(np.arange(columns), np.arange(rows)[::-1])
    mean = (share * x).sum(), (share * y).sum()
    power = (share * ((x - mean[0]) ** 2 + (y - mean[1]) ** 2)).sum() + 2 / 12
    np.testing.assert_allclose(density.centre, mean, atol=1e-12)
    assert density.spread == pytest.approx(math.sqrt(power / 2))


def test_a_letter_stands_upright_and_keeps_its_hole():
    x = points(letters("L"), 20_000)
    assert (x[:, 1] > 0).mean() < 0.45  # the foot of an L holds more than its share
    ring = points(letters("o"), 20_000)
    assert np.linalg.norm(ring, axis=1).min() > 0.1


def test_a_word_is_wider_than_its_letters_and_reads_from_left_to_right():
    x = points(letters("I."), 20_000)
    right = x[:, 0] > 1.0
    assert right.any()
    assert x[right, 1].max() < 0.0  # the full stop


def test_letters_come_in_any_alphabet_of_the_font():
    assert points(letters("Эε≠")).shape == (4000, 2)


def test_the_raster_hardly_matters():
    coarse, fine = (points(letters("S", pixels=p), 50_000) for p in (48, 192))
    np.testing.assert_allclose(coarse.var(0), fine.var(0), rtol=0.03)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: rings([]), ValueError, r"`radii` must be one row of numbers, got shape \(0,\)"),
        (lambda: rings([1.0, -2.0]), ValueError, "`radii` must be positive and finite, got -2"),
        (lambda: rings([math.nan]), ValueError, "`radii` must be positive and finite, got nan"),
        (lambda: rings(thickness=-1), ValueError, "`thickness` must be finite and at least 0"),
        (lambda: moons(math.inf), ValueError, "`thickness` must be finite .* got inf"),
        (lambda: spiral(turns=0), ValueError, "`turns` must be finite and greater than 0, got 0"),
        (lambda: spiral(arms=0), ValueError, "`arms` must be at least 1, got 0"),
        (lambda: spiral(arms=1.5), TypeError, "`arms` must be a whole number, got 1.5"),
        (lambda: spiral(turns="two"), TypeError, "`turns` must be a number, got 'two'"),
        (lambda: picture([1.0]), ValueError, r"`grey` must have shape \(rows, columns\), got"),
        (lambda: picture(np.zeros((2, 2))), ValueError, "`grey` must have a pixel above 0"),
        (lambda: picture([[1, -1]]), ValueError, "`grey` must be finite and not negative, got -1"),
        (lambda: picture([[1, math.nan]]), ValueError, "`grey` must be finite .* got nan"),
        (lambda: letters(" "), ValueError, "`word` must hold something to draw, got ' '"),
        (lambda: letters(""), ValueError, "`word` must hold something to draw, got ''"),
        (lambda: letters("a中"), ValueError, "`word` must use characters .* which lacks '中'"),
        (lambda: letters(7), TypeError, "`word` must be a string, got int"),
        (lambda: letters("a", pixels=4), ValueError, "`pixels` must be at least 8, got 4"),
    ],
)
def test_a_senseless_density_is_an_error_that_names_the_argument(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    ("n", "error", "message"),
    [
        (0, ValueError, "`n` must be at least 1, got 0"),
        (True, TypeError, "`n` must be a whole number, got True"),
        (2.5, TypeError, "`n` must be a whole number, got 2.5"),
    ],
)
def test_a_senseless_number_of_points_is_an_error(n, error, message):
    with pytest.raises(error, match=message):
        points(moons(), n)


def test_a_seed_in_place_of_a_generator_is_an_error():
    with pytest.raises(TypeError, match=r"`rng` must be a numpy\.random\.Generator .* got int"):
        moons().sample(3, 0)
