# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Sheets and the view in space: written, of the right content, also where there is no pose."""

import cv2
import numpy as np
import pytest

from nre_ros.features import FeatureGrid
from nre_ros.localization.result import LocalizationResult
from nre_ros.pictures.query import draw_query
from nre_ros.pictures.sheet import write_sheet
from nre_ros.pictures.view_3d import write_3d_view

pytest.importorskip("matplotlib")


@pytest.fixture
def result():
    rng = np.random.default_rng(0)
    return LocalizationResult(
        T_map_cam=np.eye(4),
        covariance=np.eye(6),
        confidence=0.9,
        points_used=1,
        points_considered=2,
        keyframes=(1,),
        points=rng.normal(size=(2, 3)),
        pixels=np.array([[20.0, 30.0], [80.0, 50.0]]),
        losses=np.array([0.0, 0.999]),
        sample_maps=rng.random((3, 8, 12)),
        sample_pixels=np.full((3, 2), 20.0),
        sample_grid=FeatureGrid(8.0, 3.5),
        milliseconds={"all": 5.0},
    )


def test_points_are_drawn_where_they_project_green_to_red(result):
    drawn = draw_query(np.full((64, 96), 128, np.uint8), result)
    assert drawn.shape[1:] == (96, 3) and drawn.shape[0] > 64
    (good, bad) = drawn[30, 20].astype(int), drawn[50, 80].astype(int)
    assert good[1] > good[2] + 50 and bad[2] > bad[1] + 50
    assert (drawn[5, 5] == 128).all()


@pytest.mark.parametrize("posed", [True, False])
def test_a_sheet_is_written_with_and_without_a_pose(tmp_path, result, posed):
    outcome = result if posed else LocalizationResult(reason="nothing matches", keyframes=(1,))
    image = np.full((64, 96, 3), 90, np.uint8)
    write_sheet(tmp_path / "sheet.png", image, outcome, {1: np.eye(4), 2: np.eye(4)})
    assert cv2.imread(str(tmp_path / "sheet.png")).std() > 5


def test_the_view_in_space_is_one_file_that_needs_nothing_else(tmp_path):
    pytest.importorskip("plotly")
    poses = {f"image{i}.jpg": np.eye(4) for i in range(2)}
    write_3d_view(tmp_path / "space.html", np.random.default_rng(0).normal(size=(50, 3)), np.eye(4)[None], poses)
    page = (tmp_path / "space.html").read_text()
    assert "image1.jpg" in page and "50 map points" in page
    assert "<script src=" not in page and "<link" not in page.split("<body")[0]
