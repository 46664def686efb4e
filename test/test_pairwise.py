# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The published call on the published pair, and on input that is none."""

import cv2
import numpy as np
import pytest

from nre_ros.errors import CameraError, ImageError
from nre_ros.features import load_backbone
from nre_ros.geometry import invert, pose_error
from nre_ros.nre import EstimatorConfig, NREEstimator, localize_pair


@pytest.fixture(scope="module")
def estimator():
    return NREEstimator(load_backbone("xfeat"))


@pytest.fixture(scope="module")
def sample(shared):
    folder = shared / "data/moulin_rouge"
    archive = np.load(folder / "sample.npz")
    names = ("p3D", "source_P", "source_K", "source_dist", "target_K", "target_dist")
    return {
        "source_image": folder / "source_image.jpg",
        "target_image": folder / "target_image.jpg",
        **{name: archive[name] for name in names},
    }, archive["target_P"].astype(float)


def error(stage, target_P):
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = stage["pose"]["R"], stage["pose"]["t"]
    return pose_error(invert(T), invert(target_P))


@pytest.mark.parametrize("seed", [0, 1])
def test_moulin_rouge(estimator, sample, seed):
    """Another year, a strong zoom, a turned windmill; lengths are in SfM units."""
    inputs, target_P = sample
    output = localize_pair(estimator, **inputs, gt_pose=target_P, seed=seed)
    assert set(output) == {"P3P", "coarse_irls", "fine_irls", "gt_cost", "estimate", "reason"} and not output["reason"]
    distance, angle = error(output["fine_irls"], target_P)
    assert distance < 0.02 and np.degrees(angle) < 0.22
    assert np.isfinite(output["gt_cost"])
    np.testing.assert_array_equal(output["P3P"]["pose"]["K"], inputs["target_K"])


def test_skip_gnc_ends_after_p3p_and_use_re_is_another_loss(sample):
    inputs, target_P = sample
    quick = NREEstimator(load_backbone("xfeat"), EstimatorConfig(skip_gnc=True, n_iter_p3p=2000))
    output = localize_pair(quick, **inputs)
    assert "P3P" in output and "coarse_irls" not in output and output["gt_cost"] is None
    assert np.degrees(error(output["P3P"], target_P)[1]) < 3
    plain = localize_pair(quick, **inputs, gt_pose=target_P, use_re=True)
    nre = localize_pair(quick, **inputs, gt_pose=target_P)
    assert plain["gt_cost"] > nre["gt_cost"]  # only the peak counts: all else pays ln|Omega|


def test_points_outside_the_source_image_give_a_reason(estimator, sample):
    inputs, _ = sample
    output = localize_pair(estimator, **{**inputs, "p3D": inputs["p3D"] + 1e4})
    assert "P3P" not in output and "points" in output["reason"]


def test_bad_input_is_refused_by_name(estimator, sample, tmp_path):
    inputs, _ = sample
    with pytest.raises(ImageError, match="none.jpg"):
        localize_pair(estimator, **{**inputs, "source_image": tmp_path / "none.jpg"})
    with pytest.raises(CameraError):
        localize_pair(estimator, **{**inputs, "target_K": np.zeros((3, 3))})


def test_arrays_give_the_same_as_files(estimator, sample):
    inputs, _ = sample
    read = {**inputs, **{name: cv2.imread(str(inputs[name])) for name in ("source_image", "target_image")}}
    a, b = (localize_pair(estimator, **these)["P3P"]["pose"]["t"] for these in (inputs, read))
    np.testing.assert_array_equal(a, b)
