# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The confidence of one map, and the images of other places that it is fitted to."""

import json
import math
import zipfile

import numpy as np
import pytest
from scipy.optimize import brentq

from nre_ros.errors import ImageError
from nre_ros.localization import other_places
from nre_ros.localization.confidence import VERSION, load_model
from nre_ros.localization.evidence import NUMBERS
from nre_ros.localization.map_calibration import (
    OFFSET_DEVIATION,
    RIGHT_SHARE,
    SCALE_DEVIATION,
    ConfidenceCalibration,
    fit_confidence,
)
from nre_ros.localization.other_places import FILE, credits, negative_images


def drawn(scale: float, offset: float, count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and labels that are drawn with the probability that scale and offset give them."""
    rng = np.random.default_rng(seed)
    z = rng.normal(0, 3, count)
    return z, rng.random(count) < 1 / (1 + np.exp(-(scale * z + offset)))


# --- the fit --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale, offset", [(1.0, 0.0), (0.6, -1.5), (1.5, 1.0)])
def test_known_scale_and_offset_are_recovered_from_many_examples(scale, offset):
    z, right = drawn(scale, offset, 40_000)
    found = fit_confidence(z, right)
    # counting one kind w times less than the other moves the offset of a logistic regression by ln w
    odds = RIGHT_SHARE / (1 - RIGHT_SHARE)
    moved = offset + math.log(odds / (right.sum() / (~right).sum()))
    assert found.scale == pytest.approx(scale, abs=0.04) and found.offset == pytest.approx(moved, abs=0.07)
    assert (found.positives, found.negatives) == (right.sum(), (~right).sum())


def test_the_offset_of_examples_that_are_all_alike_solves_the_prior_s_equation():
    """At logit 0 the scale has no effect; the rest is one equation in one unknown."""
    found = fit_confidence(np.zeros(20), np.arange(20) < 12)  # 0.6 of them right: all weights are 1
    expected = brentq(lambda b: 12 - 20 / (1 + math.exp(-b)) - b / OFFSET_DEVIATION**2, -5, 5)
    assert found.scale == pytest.approx(1.0, abs=1e-4) and found.offset == pytest.approx(expected, abs=1e-4)


def test_few_examples_hardly_change_the_general_fit_and_more_change_it_further():
    moves = []
    for count in (2, 10, 50, 400):
        z = np.full(2 * count, 1.0)  # as many right as wrong, all with the same confidence of 0.73
        moves.append(abs(fit_confidence(z, np.arange(2 * count) < count).offset))
    assert moves[0] < 0.5 * moves[-1] and moves == sorted(moves)
    # examples that the general fit already separates say little, however many they are
    z, right = np.r_[np.full(200, 8.0), np.full(200, -8.0)], np.arange(400) < 200
    found = fit_confidence(z, right)
    assert abs(found.offset) < 0.1 and abs(found.scale - 1) < 0.25 < SCALE_DEVIATION


def test_a_map_without_right_or_without_wrong_poses_keeps_the_general_fit():
    for right in (np.ones(30, bool), np.zeros(30, bool), np.zeros(0, bool)):
        found = fit_confidence(np.full(len(right), 2.0), right)
        assert (found.scale, found.offset) == (1.0, 0.0)
        assert found.positives + found.negatives == len(right)


def test_the_number_of_wrong_examples_does_not_shift_the_confidence():
    z, right = drawn(1.0, 0.0, 2000)
    once = fit_confidence(z, right)
    again = fit_confidence(np.r_[z, np.tile(z[~right], 5)], np.r_[right, np.zeros(5 * (~right).sum(), bool)])
    assert again.offset == pytest.approx(once.offset, abs=0.1) and again.scale == pytest.approx(once.scale, abs=0.05)


def test_a_wrong_pose_beside_an_equal_alternative_is_no_evidence_against_the_fit():
    """Half of the poses in two identical rooms are wrong, whatever the evidence: their share explains it."""
    z, shares, right = np.full(200, 6.0), np.full(200, 0.5), np.arange(200) % 2 == 0
    with_shares, without = fit_confidence(z, right, shares), fit_confidence(z, right)
    assert abs(with_shares.offset) < 0.3 and with_shares.scale > 0.9
    assert without.scale < 0.6


def test_a_calibrated_model_scales_and_shifts_the_logit():
    model = load_model("xfeat")
    numbers = np.abs(np.random.default_rng(0).normal(model.mean, model.scale, (20, len(NUMBERS))))
    calibrated = ConfidenceCalibration(0.7, -1.2, 60, 100).of_model(model)
    np.testing.assert_allclose(calibrated.logit(numbers), 0.7 * model.logit(numbers) - 1.2)
    same = ConfidenceCalibration().of_model(model)
    np.testing.assert_array_equal(same.probability(numbers), model.probability(numbers))
    with pytest.raises(ValueError, match="version"):
        ConfidenceCalibration(version=VERSION + 1).of_model(model)


@pytest.mark.parametrize(
    "logits, right, shares",
    [([1.0], [True, False], None), ([np.nan, 1.0], [True, False], None), ([1.0, 2.0], [True, False], [0.0, 1.0])],
)
def test_examples_that_do_not_fit_together_are_refused(logits, right, shares):
    with pytest.raises(ValueError, match="logits"):
        fit_confidence(logits, right, shares)


# --- the stored calibration -----------------------------------------------------------------------------


def test_a_calibration_is_stored_and_read():
    calibration = ConfidenceCalibration(0.83, -0.4, 61, 118)
    assert ConfidenceCalibration.from_json(calibration.to_json()) == calibration


@pytest.mark.parametrize(
    "change",
    [
        {"scale": 0.0},
        {"scale": math.nan},
        {"scale": "1.0"},
        {"scale": True},
        {"offset": math.inf},
        {"offset": 1e9},
        {"offset": None},
        {"positives": -1},
        {"positives": 1.5},
        {"negatives": 10**400},
        {"version": "2"},
        {"more": 1},
    ],
)
def test_a_malformed_calibration_is_refused(change):
    stored = json.loads(ConfidenceCalibration().to_json())
    with pytest.raises(ValueError, match="calibration of the confidence"):
        ConfidenceCalibration.from_json(json.dumps({**stored, **change}))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"scale": 1.0}', "[" * 100_000, b"\xff\xfe\x00", "1" * 5000])
def test_what_is_no_calibration_is_refused(text):
    with pytest.raises(ValueError, match="calibration of the confidence"):
        ConfidenceCalibration.from_json(text)


# --- images of other places -----------------------------------------------------------------------------


def test_images_of_other_places_depend_on_index_and_seed_alone():
    few, more, others = list(negative_images(10)), list(negative_images(20)), list(negative_images(10, seed=1))
    for a, b in zip(few, more):
        assert a.name == b.name and (a.image == b.image).all()
    assert any(a.image.shape != b.image.shape or (a.image != b.image).any() for a, b in zip(few, others))
    for each in more:
        assert each.image.dtype == np.uint8 and each.image.shape == (each.camera.height, each.camera.width, 3)
        assert each.camera.width == 480 and each.camera.fx == pytest.approx(525 / 640 * max(each.image.shape))
    assert len({each.name for each in more}) > 15


def test_every_image_of_other_places_has_an_author_and_a_free_licence():
    named = {each["file"]: each for each in credits()}
    seen = {each.name for each in negative_images(160)} - {"noise", "clouds", "ramp"}
    assert seen == set(named)
    assert {each["licence"] for each in named.values()} == {"CC0-1.0", "CC-BY-2.0", "CC-BY-4.0"}
    assert all(each["author"] for each in named.values())
    assert FILE.stat().st_size < 3 * 2**20


@pytest.mark.parametrize("content", ["absent", "text", "empty", "no image", "nothing in it"])
def test_a_damaged_file_of_other_places_is_reported(tmp_path, monkeypatch, content):
    file = tmp_path / "other_places.zip"
    if content == "text":
        file.write_text("text")
    elif content != "absent":
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("credits.json", "[]")
            if content != "nothing in it":
                archive.writestr("a.jpg", b"" if content == "empty" else b"no image")
    monkeypatch.setattr(other_places, "FILE", file)
    other_places._files.cache_clear()
    try:
        with pytest.raises(ImageError, match="other_places.zip.*install nre_ros again"):
            list(negative_images(1))
    finally:
        other_places._files.cache_clear()
