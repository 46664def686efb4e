# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Text trajectories: stamps exact to the nanosecond, poses, and lines that are no pose."""

import argparse

import numpy as np
import pytest

from nre_ros.cli.arguments import add_pose_convention
from nre_ros.errors import ImportSourceError, PoseError
from nre_ros.geometry import invert, pose_matrix
from nre_ros.keyframes.importers.pose_columns import POSE_DIRECTIONS, POSE_FORMATS, PoseColumns, PoseConvention
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
    first, second = read_text_trajectory(tmp_path / "poses.txt").lines
    assert (first.number, second.number) == (3, 4)
    stamp, T = first.stamped_pose()
    assert stamp == 1_500_000_000
    np.testing.assert_allclose(T[:3, 3], [1, 2, 3])
    with pytest.raises(PoseError, match="not finite"):
        second.stamped_pose()


POSE = (1.5, -0.25, 2.0)
QUATERNION = (0.1, -0.3, 0.5, 0.806225774829855)
"""x y z w"""
STAMP = 1_403_636_579_763_555_584


def numbers(*values):
    return [f"{value:.15g}" for value in values]


def w_first(q=QUATERNION):
    return (q[3], *q[:3])


SECONDS = "1403636579.763555584"
LINES = {
    "TUM": " ".join([SECONDS, *numbers(*POSE, *QUATERNION)]),
    "header without #": "timestamp tx ty tz qx qy qz qw\n" + " ".join([SECONDS, *numbers(*POSE, *QUATERNION)]),
    "header with w first": "# timestamp tx ty tz qw qx qy qz\n" + " ".join([SECONDS, *numbers(*POSE, *w_first())]),
    "header with the quaternion first": "time,qw,qx,qy,qz,tx,ty,tz\n"
    + ",".join([SECONDS, *numbers(*w_first(), *POSE)]),
    "header of a ROS topic": "time,field.pose.position.x,field.pose.position.y,field.pose.position.z,"
    "field.pose.orientation.x,field.pose.orientation.y,field.pose.orientation.z,field.pose.orientation.w\n"
    + ",".join([str(STAMP), *numbers(*POSE, *QUATERNION)]),
    "header of an odometry topic": "timestamp,pose.position.x,pose.position.y,pose.position.z,pose.orientation.x,"
    "pose.orientation.y,pose.orientation.z,pose.orientation.w,twist.linear.x,twist.linear.y,twist.linear.z\n"
    + ",".join([str(STAMP), *numbers(*POSE, *QUATERNION), "0", "0", "0"]),
    "rostopic echo -p": "%time,field.header.seq,field.header.stamp,field.header.frame_id,field.pose.position.x,"
    "field.pose.position.y,field.pose.position.z,field.pose.orientation.x,field.pose.orientation.y,"
    "field.pose.orientation.z,field.pose.orientation.w\n"
    + ",".join([str(STAMP), "7", str(STAMP), "map", *numbers(*POSE, *QUATERNION)]),
    "more columns in nanoseconds without a header": ",".join([str(STAMP), *numbers(*POSE, *QUATERNION), *"000000"]),
    "commas and a header": "timestamp,x,y,z,qx,qy,qz,qw\n" + ",".join([SECONDS, *numbers(*POSE, *QUATERNION)]),
    "semicolons": "; ".join([SECONDS, *numbers(*POSE, *QUATERNION)]) + ";",
    "a column too many": "#timestamp x y z qx qy qz qw id\n" + " ".join([SECONDS, *numbers(*POSE, *QUATERNION), "1"]),
    "a column too many without a header": " ".join([SECONDS, *numbers(*POSE, *QUATERNION), "1"]),
    "ORB-SLAM3's nanoseconds": " ".join([f"{STAMP}.000000", *numbers(*POSE, *QUATERNION)]),
    "EuRoC": "#timestamp, p_RS_R_x [m], p_RS_R_y [m], p_RS_R_z [m], q_RS_w [], q_RS_x [], q_RS_y [], q_RS_z [], "
    "v_RS_R_x [m s^-1], v_RS_R_y [m s^-1], v_RS_R_z [m s^-1], b_w_RS_S_x [rad s^-1], b_w_RS_S_y [rad s^-1], "
    "b_w_RS_S_z [rad s^-1], b_a_RS_S_x [m s^-2], b_a_RS_S_y [m s^-2], b_a_RS_S_z [m s^-2]\n"
    + ",".join([str(STAMP), *numbers(*POSE, *w_first()), *["0.5"] * 9]),
    "EuRoC without a header": ",".join([str(STAMP), *numbers(*POSE, *w_first()), *"000000000"]),
    "the quaternion first without a header": " ".join([SECONDS, *numbers(*w_first(), *POSE)]),
    "microseconds": " ".join([SECONDS.replace(".", "")[:16] + ".584", *numbers(*POSE, *QUATERNION)]),
}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be with its mark"])
@pytest.mark.parametrize("kind", LINES)
def test_other_programs_trajectories_give_the_same_pose(tmp_path, kind, encoding):
    text = LINES[kind].replace("\n", "\r\n") + "\r\n"
    data = b"\xfe\xff" + text.encode("utf-16-be") if "mark" in encoding else text.encode(encoding)
    (tmp_path / "poses.txt").write_bytes(data)
    (line,) = read_text_trajectory(tmp_path / "poses.txt").lines
    stamp, T = line.stamped_pose()
    assert stamp == STAMP
    np.testing.assert_allclose(T, pose_matrix(POSE, QUATERNION), atol=1e-12)


def test_what_the_file_does_not_show_is_asked_for(tmp_path):
    path = tmp_path / "poses.txt"
    path.write_text(" ".join([SECONDS, *numbers(*POSE, *w_first())]) + "\n")
    expected = pose_matrix(POSE, QUATERNION)
    for convention, T in (
        (PoseConvention("wxyz"), expected),
        (PoseConvention("wxyz", "map-to-camera"), invert(expected)),
        (PoseConvention("tum"), pose_matrix(POSE, w_first())),
    ):
        trajectory = read_text_trajectory(path, convention)
        np.testing.assert_allclose(trajectory.lines[0].stamped_pose()[1], T, atol=1e-12)
        assert convention.direction in trajectory.columns.describe()
    with pytest.raises(ImportSourceError, match="pose format 'xml' is unknown"):
        PoseConvention("xml")


def test_the_columns_are_described_with_the_reason(tmp_path):
    (tmp_path / "poses.txt").write_text(LINES["EuRoC without a header"] + "\n")
    found = read_text_trajectory(tmp_path / "poses.txt").columns
    assert found.describe() == (
        "t x y z qw qx qy qz and 9 more in nanoseconds, camera-to-map (EuRoC's columns: nanoseconds and 17 columns)"
    )
    assert not found.is_tum and PoseColumns().is_tum


def test_a_first_pose_that_is_the_identity_shows_the_order(tmp_path):
    (tmp_path / "poses.txt").write_text("0 0 0 0 1 0 0 0\n" + " ".join(["1", *numbers(*POSE, *w_first())]) + "\n")
    lines = read_text_trajectory(tmp_path / "poses.txt").lines
    np.testing.assert_allclose(lines[0].stamped_pose()[1], np.eye(4))
    np.testing.assert_allclose(lines[1].stamped_pose()[1], pose_matrix(POSE, QUATERNION), atol=1e-12)


@pytest.mark.parametrize("stamp", ["1e999999", "-1e30", "9" * 40, "1e-999999999"])
def test_stamps_beyond_64_bits_are_no_pose(tmp_path, stamp):
    (tmp_path / "poses.txt").write_text(f"{stamp} 1 2 3 0 0 0 1\n1 1 2 3 0 0 0 1\n2 1 2 3 0 0 0 1\n")
    first, second, _ = read_text_trajectory(tmp_path / "poses.txt").lines
    assert second.stamped_pose()[0] == 10**9
    if "-9" in stamp:
        assert first.stamped_pose()[0] == 0
    else:
        with pytest.raises(PoseError, match="out of range"):
            first.stamped_pose()


def test_the_commands_offer_the_formats_and_directions_that_are_known():
    parser = argparse.ArgumentParser()
    add_pose_convention(parser, "--format", "--direction", "the poses")
    choices = {action.dest: action.choices for action in parser._actions}
    assert (choices["format"], choices["direction"]) == (POSE_FORMATS, POSE_DIRECTIONS)


KITTI = "1 0 0 0.5 0 1 0 0 0 0 1 2"


@pytest.mark.parametrize(
    "text, match",
    [
        (KITTI, "matrices of 12 numbers"),
        (f"7 {KITTI}", "matrices of 12 numbers"),
        (f"{KITTI} 0 0 0 1", "matrices of 16 numbers"),
        (f"{STAMP} {KITTI} 0 0 0 1", "matrices of 16 numbers"),
        ("sec,nanosec,x,y,z,qx,qy,qz,qw\n1,500000000,0,0,0,0,0,0,1", "stamps in two columns"),
    ],
)
def test_matrices_and_stamps_in_two_columns_are_refused(tmp_path, text, match):
    (tmp_path / "poses.txt").write_text(text + "\n")
    with pytest.raises(ImportSourceError, match=f"poses.txt: .*{match}"):
        read_text_trajectory(tmp_path / "poses.txt")


def test_a_line_with_another_number_of_columns_than_most_is_refused_with_that_number(tmp_path):
    line = " ".join(["1", *numbers(*POSE, *QUATERNION)])
    (tmp_path / "poses.txt").write_text(f"{line} 0\n{line} 0\n{line}\n")
    assert "8 numbers, expected 9 as in most lines" in str(read_text_trajectory(tmp_path / "poses.txt").lines[2].error)
