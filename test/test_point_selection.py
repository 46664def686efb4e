# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Selection of map points: smoothed depth without edges, and candidates distributed over the image."""

import numpy as np

from nre_ros.keyframes.building.point_selection import select_distributed, smooth_depth


def test_smoothed_depth_is_0_around_missing_depth_and_averages_noise():
    rng = np.random.default_rng(0)
    flat = np.full((60, 80), 2.0)
    noisy = flat + rng.normal(0, 0.01, flat.shape)
    assert (smooth_depth(noisy)[5:-5, 5:-5] > 0).mean() > 0.9
    assert np.abs(smooth_depth(noisy)[smooth_depth(noisy) > 0] - 2).std() < 0.004  # the median averages
    for hole in (0.0, np.nan, np.inf, -1.0):
        flat[30, 40] = hole
        found = smooth_depth(flat)
        assert (found[28:33, 38:43] == 0).all() and (found > 0).sum() == 60 * 80 - 25
    assert not smooth_depth(np.zeros((60, 80))).any()


def test_the_best_candidates_of_every_region_come_first():
    rng = np.random.default_rng(0)
    pixels = rng.uniform(0, 640, (5000, 2)) * [1, 0.75]
    scores = rng.random(5000) + 10 * (pixels[:, 0] < 320)  # the left half is better throughout
    chosen = select_distributed(pixels, scores, 400, 640, 480)
    assert len(set(chosen)) == 400
    assert 0.4 < (pixels[chosen, 0] < 320).mean() < 0.62
    assert scores[chosen].mean() > np.mean(scores) + 0.2
    np.testing.assert_array_equal(chosen, select_distributed(pixels, scores, 400, 640, 480))
    best = select_distributed(pixels[:300], scores[:300], 1, 640, 480)
    assert best == scores[:300].argmax()


def test_a_pixel_is_selected_once():
    pixels = np.array([[10.0, 10], [10.2, 9.9], [50, 50]])
    assert sorted(select_distributed(pixels, np.array([1.0, 2.0, 0.5]), 10, 100, 100)) == [1, 2]
    assert len(select_distributed(np.zeros((0, 2)), np.zeros(0), 10, 100, 100)) == 0
