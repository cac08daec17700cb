"""The embedded digits: their scale, and splits that keep every label's share."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_digits

from lib.data.digits import digits, digits_split


def split(seed: int = 0, **settings):
    return digits_split(np.random.default_rng(seed), **settings)


def test_digits_are_1797_images_that_reach_from_paper_to_ink():
    everything = digits()
    assert everything.images.shape == (1797, 8, 8)
    assert everything.images.dtype == np.float32
    assert (everything.images.min(), everything.images.max()) == (-1.0, 1.0)
    assert np.bincount(everything.labels).min() > 170
    assert repr(everything) == "Digits(1797 images of 8 × 8)"


def test_a_pixel_keeps_its_count_of_ink():
    assert np.array_equal((digits().images + 1) * 8, load_digits().images)


def test_views_for_networks_hold_the_same_numbers():
    everything = digits()
    assert everything.flat.shape == (1797, 64)
    assert everything.channels.shape == (1797, 1, 8, 8)
    assert np.array_equal(everything.flat[7].reshape(8, 8), everything.channels[7, 0])


def test_nobody_can_write_into_the_shared_images():
    for part in (digits(), *split()):
        with pytest.raises(ValueError, match="read-only"):
            part.images[0] = 0.0
        with pytest.raises(ValueError, match="read-only"):
            part.labels[0] = 0


@pytest.mark.parametrize("share", [0.2, 0.5])
def test_both_halves_together_hold_every_digit_once(share):
    train, test = split(test_share=share)
    together = np.concatenate([train.flat, test.flat])
    assert len(train) + len(test) == 1797
    assert np.array_equal(np.unique(together, axis=0), np.unique(digits().flat, axis=0))
    assert len(test) == pytest.approx(share * 1797, abs=5)


@pytest.mark.parametrize("share", [0.2, 0.5])
def test_every_label_keeps_its_share(share):
    _, test = split(test_share=share)
    wanted = share * np.bincount(digits().labels)
    assert abs(np.bincount(test.labels) - wanted).max() <= 0.5


def test_images_keep_their_own_labels():
    label_of = {image.tobytes(): label for image, label in zip(*_pairs(digits()), strict=True)}
    for part in split():
        assert all(label_of[i.tobytes()] == label for i, label in zip(*_pairs(part), strict=True))


def _pairs(part):
    return part.images, part.labels


def test_the_split_depends_on_the_generator_only():
    assert np.array_equal(split(3)[1].images, split(3)[1].images)
    assert not np.array_equal(split(3)[1].images, split(4)[1].images)


def test_every_image_may_come_to_either_side():
    sides = [
        {image.tobytes() for image in split(seed, test_share=0.5)[1].images} for seed in (3, 4)
    ]
    assert len(sides[0] & sides[1]) == pytest.approx(len(sides[0]) / 2, rel=0.15)


def test_labels_come_mixed():
    for part in split():
        assert (np.diff(part.labels) != 0).mean() > 0.8


def test_each_side_has_each_label_even_in_an_extreme_split():
    for share in (1e-6, 1 - 1e-6):
        for part in split(test_share=share):
            assert set(part.labels) == set(range(10))


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, float("nan")])
def test_a_share_outside_0_and_1_is_an_error_that_names_it(share):
    with pytest.raises(ValueError, match=r"`test_share` must lie strictly between 0 and 1, got"):
        split(test_share=share)


def test_a_seed_in_place_of_a_generator_is_an_error():
    with pytest.raises(TypeError, match=r"`rng` must be a numpy\.random\.Generator .* got int"):
        digits_split(0)
