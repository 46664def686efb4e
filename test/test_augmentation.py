# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Augmented pairs: the true places follow rolling shutters, and what objects hide is not visible."""

import math
from dataclasses import replace

import cv2
import numpy as np
import pytest
from skimage import data

from nre_ros.errors import TrainingError
from nre_ros.learning.augmentation import Augmentation, occlude, roll_shutter, rolled_places
from nre_ros.learning.pair_sources import PhotographPairs, TrainingPairs
from nre_ros.learning.pairs import TrainingPair, inside_image

COFFEE = np.ascontiguousarray(data.coffee()[:, :, ::-1])
UNCHANGED = Augmentation(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def grid(width: int, height: int, step: int = 7) -> np.ndarray:
    return np.stack(np.meshgrid(np.arange(0, width, step), np.arange(0, height, step)), -1).reshape(-1, 2).astype(float)


# light and sensor


def test_augmentation_without_changes_returns_the_image():
    image = COFFEE[:64, :80]
    assert np.array_equal(UNCHANGED(image, rng()), image)


@pytest.mark.parametrize("name, most", [("light", 0.3), ("exposure", 0.4), ("gamma", 0.4), ("blur", 2.0), ("noise", 9)])
def test_each_augmentation_changes_the_image_within_its_limit(name, most):
    image = np.ascontiguousarray(COFFEE[:64, :80])
    changed = [replace(UNCHANGED, **{name: most})(image, rng(seed)) for seed in range(4)]
    assert all(c.shape == image.shape and c.dtype == np.uint8 for c in changed)
    assert len({c.tobytes() for c in changed}) == 4
    if name == "exposure":
        ratio = changed[0][image < 100].astype(float).sum() / image[image < 100].sum()
        assert math.exp(-0.42) < ratio < math.exp(0.42) and ratio != 1
    if name == "noise":
        assert (changed[0].astype(float) - image)[(image > 40) & (image < 215)].std() < 9


@pytest.mark.parametrize(
    "name, value", [("blur", -1.0), ("blur", math.nan), ("rolling_shutter", 0.3), ("occlusion", 0.95)]
)
def test_impossible_augmentation_is_refused(name, value):
    with pytest.raises(TrainingError, match=f"{name}={value} must be"):
        Augmentation(**{name: value})


# rolling shutter


@pytest.mark.parametrize("motion", [(12.0, 0.0), (0.0, 9.0), (-8.0, -11.0)])
def test_each_row_shows_the_image_of_its_own_time(motion):
    """The oracle takes row v from the whole image shifted by t(v) times the motion."""
    image = cv2.GaussianBlur(COFFEE[:120, :160], (0, 0), 1.0)
    rolled = roll_shutter(image, np.array(motion))
    for v in (5, 40, 59, 80, 114):
        t = v / 119 - 0.5
        shift = np.array([[1, 0, t * motion[0]], [0, 1, t * motion[1]]])
        expected = cv2.warpAffine(image, shift, (160, 120), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
        assert np.abs(rolled[v].astype(int) - expected[v]).max() <= 6  # OpenCV interpolates between 32 steps a pixel


def test_places_in_the_rolled_image_are_those_of_the_given_rows():
    """The content of pixel (u, v) lies at (u, v) - t(v) motion in the global image."""
    motion, seen = np.array([6.0, -14.0]), grid(160, 120)
    t = seen[:, 1:] / 119 - 0.5
    np.testing.assert_allclose(rolled_places(seen - t * motion, motion, 120), seen, atol=1e-9)
    middle = np.array([[31.0, 59.5]])
    np.testing.assert_allclose(rolled_places(middle, np.array([50.0, 0.0]), 120), middle, atol=1e-9)


def test_a_marked_pixel_is_found_at_its_rolled_place():
    motion = np.array([9.0, 5.0])
    for place in ((30, 20), (80, 60), (140, 101)):
        image = np.zeros((120, 160, 3), np.uint8)
        image[place[1], place[0]] = 255
        spot = roll_shutter(cv2.GaussianBlur(image, (0, 0), 2.0) * 8, motion)[..., 0].astype(float)
        y, x = np.mgrid[:120, :160]
        centre = (spot * x).sum() / spot.sum(), (spot * y).sum() / spot.sum()
        np.testing.assert_allclose(rolled_places(np.array([place], float), motion, 120)[0], centre, atol=0.1)


def pair_of(image: np.ndarray, pixels: np.ndarray) -> TrainingPair:
    return TrainingPair(image, image, pixels, pixels, np.ones(len(pixels), np.bool_))


def test_points_of_a_pair_follow_both_rolling_shutters():
    """Of a smooth ramp, whose grey values say where a pixel comes from, both images show the same at the places."""
    ramp = np.stack(np.meshgrid(np.linspace(20, 220, 160), np.linspace(20, 220, 120)), -1)
    image = np.dstack([ramp, np.full((120, 160), 90.0)]).round().astype(np.uint8)
    pair = pair_of(image, grid(160, 120))
    changed = replace(UNCHANGED, rolling_shutter=0.1).change_pair(pair, rng(3))
    assert len(changed.pixels_a) < len(pair.pixels_a) and not changed.visible.all()
    assert 0.7 < changed.visible.mean() and inside_image(changed.pixels_a, 160, 120).all()
    away = (np.abs(changed.pixels_b - (79.5, 59.5)) < (70, 50)).all(1) & changed.visible
    away &= (np.abs(changed.pixels_a - (79.5, 59.5)) < (70, 50)).all(1)
    found = [
        cv2.remap(image, pixels[None, away].astype(np.float32), None, cv2.INTER_LINEAR)[0].astype(int)
        for image, pixels in ((changed.image_a, changed.pixels_a), (changed.image_b, changed.pixels_b))
    ]
    assert away.sum() > 150 and np.abs(found[0] - found[1]).max() <= 3
    assert np.abs(changed.pixels_a - changed.pixels_b).max() > 2


# occlusion


def test_what_objects_hide_is_known_and_the_rest_is_unchanged():
    image = COFFEE[:120, :160]
    for seed in range(5):
        changed, hidden = occlude(image, 0.3, rng(seed))
        assert np.array_equal(changed[~hidden], image[~hidden])
        assert (changed[hidden] != image[hidden]).any(-1).mean() > 0.95
        assert 0 < hidden.mean() <= 0.33
    assert not occlude(image, 0.0, rng())[1].any()


def test_hidden_points_leave_the_first_image_and_are_not_visible_in_the_second():
    black = np.zeros((120, 160, 3), np.uint8)  # objects are not black
    pair = pair_of(black, grid(160, 120, 3))
    shares = []
    for seed in range(4):
        changed = replace(UNCHANGED, occlusion=0.6).change_pair(pair, rng(seed))
        values = [
            image[pixels[:, 1].astype(int), pixels[:, 0].astype(int)].max(-1)
            for image, pixels in ((changed.image_a, changed.pixels_a), (changed.image_b, changed.pixels_b))
        ]
        assert 100 < len(changed.pixels_a) <= len(pair.pixels_a) and not values[0].any()
        assert not values[1][changed.visible].any()
        assert changed.visible.all() or (values[1][~changed.visible] > 0).mean() > 0.9  # some paint is black
        shares += [len(changed.pixels_a) / len(pair.pixels_a), changed.visible.mean()]
    assert len(set(shares)) > 6 and 0.2 < min(shares) < 0.9


def test_places_that_were_not_visible_stay_so():
    pixels = grid(160, 120)
    pair = replace(pair_of(COFFEE[:120, :160], pixels), visible=np.zeros(len(pixels), np.bool_), pixels_b=pixels + 500)
    changed = Augmentation().change_pair(pair, rng())
    assert not changed.visible.any() and np.isfinite(changed.pixels_b).all()


def test_augmented_pairs_depend_on_seed_and_number_alone():
    pairs = TrainingPairs([PhotographPairs({"coffee": COFFEE}, (160, 120), 100)], seed=2)
    first, again, other = pairs.pair(3), pairs.starting_at(3).pair(3), pairs.pair(4)
    assert np.array_equal(first.image_b, again.image_b) and np.array_equal(first.pixels_a, again.pixels_a)
    assert not np.array_equal(first.image_b, other.image_b)
