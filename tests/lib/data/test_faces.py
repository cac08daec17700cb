"""The authored faces: what they show, who decides them, and how any picture is judged by them."""

from __future__ import annotations

import numpy as np
import pytest

from lib.data.faces import NAMES, SIDE, draw, faces, fit


def some(count: int = 60, seed: int = 0):
    return faces(count, np.random.default_rng(seed))


def changed(name: str, value: float) -> np.ndarray:
    parameters = np.zeros((1, len(NAMES)))
    parameters[0, NAMES.index(name)] = value
    return draw(parameters)[0]


def test_faces_have_the_shape_and_scale_of_a_data_set():
    data = some()
    assert len(data) == 60
    assert data.images.shape == (60, SIDE, SIDE)
    assert data.images.dtype == np.float32
    assert data.images.min() >= -1.0
    assert data.images.max() <= 1.0
    assert data.parameters.shape == (60, len(NAMES)) == (60, 8)
    assert repr(data) == "Faces(60 images of 16 × 16)"


def test_the_images_are_drawn_from_the_parameters():
    data = some()
    assert np.array_equal(draw(data.parameters).astype(np.float32), data.images)


def test_parameters_are_independent_standard_normal():
    parameters = some(4000).parameters
    assert parameters.mean(axis=0) == pytest.approx(0.0, abs=0.08)
    assert np.cov(parameters.T) == pytest.approx(np.eye(8), abs=0.1)


def test_faces_depend_on_the_generator_only():
    assert np.array_equal(some(5, 3).images, some(5, 3).images)
    assert not np.array_equal(some(5, 3).images, some(5, 4).images)


def test_a_face_does_not_depend_on_its_neighbours():
    data = some(5)
    assert np.array_equal(draw(data.parameters[2:3])[0], draw(data.parameters)[2])


def test_the_average_face_is_paper_skin_and_ink():
    face = draw(np.zeros((1, 8)))[0]
    assert face[0, 0] == pytest.approx(-1.0, abs=1e-3)  # a corner
    assert face[3, 8] == pytest.approx(0.0, abs=0.05)  # the forehead
    assert face.max() > 0.8  # an eye or the mouth
    assert face == pytest.approx(face[:, ::-1])


def test_every_parameter_does_what_its_name_says():
    def ink(image):
        return (image > 0.3).sum()

    def skin(image):
        return (image > -0.5)[:, 8].sum(), (image > -0.5)[8].sum()

    assert skin(changed("size", 2.0)) > skin(changed("size", -2.0))
    (tall, narrow), (flat, wide) = (
        skin(changed("elongation", 2.5)),
        skin(changed("elongation", -2.5)),
    )
    assert tall > flat
    assert narrow < wide
    assert ink(changed("eye size", 2.0)) > ink(changed("eye size", -2.0))
    assert ink(changed("mouth width", 2.0)) > ink(changed("mouth width", -2.0))

    def middle(image, rows, axis):
        weight = np.clip(image, 0.0, None)[rows, 8:]
        return (weight.sum(axis=1 - axis) * np.arange(weight.shape[axis])).sum() / weight.sum()

    eyes, mouth = slice(4, 9), slice(9, 14)
    assert middle(changed("eye distance", 2.0), eyes, 1) > middle(
        changed("eye distance", -2.0), eyes, 1
    )
    assert middle(changed("eye height", 2.0), eyes, 0) > middle(
        changed("eye height", -2.0), eyes, 0
    )
    assert middle(changed("mouth height", 2.0), mouth, 0) > middle(
        changed("mouth height", -2.0), mouth, 0
    )
    smile, frown = changed("mouth curve", 2.0), changed("mouth curve", -3.0)
    corner, centre = (slice(9, 14), 10), (slice(9, 14), 8)
    assert smile[corner].argmax() < smile[centre].argmax()
    assert frown[corner].argmax() > frown[centre].argmax()


def test_pixels_are_smooth_functions_of_the_parameters():
    parameters, move = some(20).parameters, np.full((20, 8), 1e-5)
    forward, back = draw(parameters + move), draw(parameters - move)
    assert abs(forward - back).max() < 1e-3
    assert abs(forward + back - 2 * draw(parameters)).max() < 1e-7


def test_extreme_parameters_stay_in_range():
    extreme = draw(np.stack([np.full(8, 30.0), np.full(8, -30.0)]))
    assert np.isfinite(extreme).all()
    assert abs(extreme).max() <= 1.0


def test_fit_finds_a_face_again():
    data = some(200)
    parameters, residual = fit(data.images)
    assert residual.max() < 1e-6
    assert parameters == pytest.approx(data.parameters, abs=1e-4)


def test_many_images_are_fitted_like_a_few():
    data = some(2100)
    many = fit(data.images, steps=2)
    few = fit(data.images[2040:2060], steps=2)
    assert many[0][2040:2060] == pytest.approx(few[0])
    assert many[1][2040:2060] == pytest.approx(few[1])


def test_fit_tells_how_far_a_picture_is_from_a_face():
    data = some(100)
    noise = 0.1 * np.random.default_rng(1).standard_normal(data.images.shape)
    residual = fit(data.images + noise)[1]
    whole = np.sqrt((noise**2).mean(axis=(1, 2)))
    assert (residual < whole).all()  # a little of the noise looks like another face
    assert residual.mean() == pytest.approx(0.1 * np.sqrt(1 - 8 / 256), rel=0.02)


def test_more_steps_never_fit_worse():
    images = np.random.default_rng(2).uniform(-1, 1, (30, SIDE, SIDE))
    residuals = [fit(images, steps=steps)[1] for steps in (1, 4, 12)]
    assert (residuals[1] <= residuals[0]).all()
    assert (residuals[2] <= residuals[1]).all()


def test_fitted_parameters_and_residual_belong_together_and_stay_within_reach():
    images = np.random.default_rng(3).uniform(-1, 1, (30, SIDE, SIDE))
    parameters, residual = fit(images)
    left = images - draw(parameters)
    assert residual == pytest.approx(np.sqrt((left**2).mean(axis=(1, 2))))
    assert abs(parameters).max() <= 4.0


@pytest.mark.parametrize("count", [0, -3])
def test_a_count_below_1_is_an_error_that_names_it(count):
    with pytest.raises(ValueError, match="`count` must be at least 1, got"):
        some(count)


def test_a_count_that_is_no_whole_number_is_an_error():
    with pytest.raises(TypeError, match=r"`count` must be a whole number, got 2\.5"):
        some(2.5)


def test_a_seed_in_place_of_a_generator_is_an_error():
    with pytest.raises(TypeError, match=r"`rng` must be a numpy\.random\.Generator .* got int"):
        faces(3, 0)


@pytest.mark.parametrize("shape", [(8,), (3, 7), (0, 8), (2, 2, 8)])
def test_parameters_of_another_shape_are_an_error(shape):
    with pytest.raises(ValueError, match=r"`parameters` must have shape \(N, 8\), got"):
        draw(np.zeros(shape))


def test_parameters_that_are_not_finite_are_an_error():
    with pytest.raises(ValueError, match="`parameters` must be finite, got nan"):
        draw(np.full((1, 8), np.nan))


@pytest.mark.parametrize("shape", [(16, 16), (2, 8, 8), (0, 16, 16)])
def test_images_of_another_shape_are_an_error(shape):
    with pytest.raises(ValueError, match=r"`images` must have shape \(N, 16, 16\), got"):
        fit(np.zeros(shape))


def test_steps_below_1_are_an_error():
    with pytest.raises(ValueError, match="`steps` must be at least 1, got 0"):
        fit(np.zeros((1, 16, 16)), steps=0)
