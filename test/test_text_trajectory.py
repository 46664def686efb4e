# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Text trajectories: stamps exact to the nanosecond, poses, and lines that are no pose."""

import numpy as np
import pytest

from nre_ros.errors import ImportSourceError, PoseError
from nre_ros.keyframes.importers.text_trajectory import parse_tum_pose, read_text_trajectory


@pytest.mark.parametrize(
    "line, stamp",
    [
        ("1700000000.266667 1 2 3 0 0 0 1", 1_700_000_000_266_667_000),
        ("0 1 2 3 0 0 0 -1.001", 0),
        ("1.7e9 1 2 3 0 0 0 1", 1_700_000_000 * 10**9),
        ("1700000000.123456789 1 2 3 0 0 0 1", 1_700_000_000_123_456_789),
    ],
)
def test_a_line_gives_stamp_and_pose(line, stamp):
    found, T = parse_tum_pose(line)
    assert found == stamp
    np.testing.assert_allclose(T, [[1, 0, 0, 1], [0, 1, 0, 2], [0, 0, 1, 3], [0, 0, 0, 1]])


@pytest.mark.parametrize(
    "line, kind, match",
    [
        ("1 1 2 3 0 0 1", ImportSourceError, "7 numbers"),
        ("1 a b c 0 0 0 1", ImportSourceError, "a b c"),
        ("1 nan 2 3 0 0 0 1", PoseError, "finite"),
        ("nan 1 2 3 0 0 0 1", PoseError, "finite"),
        ("1 1 2 3 0 0 0 1.3", PoseError, "length 1.3"),
        ("1 1 2 3 0 0 0 0", PoseError, "length 0"),
    ],
)
def test_a_line_that_is_no_pose_is_refused(line, kind, match):
    with pytest.raises(kind, match=match):
        parse_tum_pose(line)


def test_a_file_is_read_with_line_numbers_and_the_reasons_of_wrong_lines(tmp_path):
    (tmp_path / "poses.txt").write_text("# t x y z qx qy qz qw\n\n1.5 1 2 3 0 0 0 1\n2 nan 0 0 0 0 0 1\n")
    first, second = read_text_trajectory(tmp_path / "poses.txt")
    assert (first.number, second.number) == (3, 4)
    stamp, T = first.stamped_pose()
    assert stamp == 1_500_000_000
    np.testing.assert_allclose(T[:3, 3], [1, 2, 3])
    with pytest.raises(PoseError, match="not finite"):
        second.stamped_pose()
