# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Maps from bags: topics, poses, depth and damage, on bags written here from rendered and from real images."""

import contextlib
import os
import shutil
import sqlite3
from pathlib import Path

import cv2
import numpy as np
import pytest
from keyframe_samples import PlaceBackbone, pixels_of
from scipy.spatial.transform import Rotation

from nre_ros.cli import main
from nre_ros.errors import CameraError, ImageError, ImportSourceError, NreError, PoseError
from nre_ros.gallery import Gallery, build_room, mapping_poses
from nre_ros.geometry import Camera, pose_matrix
from nre_ros.keyframes.building.builder import KeyframeBuilder
from nre_ros.keyframes.importers.build_map import build_map

pytest.importorskip("rosbags", reason="needs rosbags to write and read bags")
from bag_samples import (
    OPTICAL,
    START,
    depth_message,
    encoded_message,
    odometry_message,
    rgbd_messages,
    write_messages,
)

from nre_ros.gallery.bag import camera_info_message, image_message, pose_message, tf_message
from nre_ros.keyframes.importers.bag.options import BagOptions
from nre_ros.keyframes.importers.bag.recording import BagRecording
from nre_ros.keyframes.importers.bag.source import bag_source
from nre_ros.messages.bag import open_bag

CAMERA = Camera(160, 120, 130.0, 131.0, 79.5, 59.5)
DEPTH_CAMERA = Camera(160, 120, 146.0, 146.0, 79.5, 59.5)
T_BASE_CAM = pose_matrix([0.1, -0.05, 0.4], [0.5, -0.5, 0.5, -0.5])
T_MAP_ODOM = pose_matrix([1.0, 2.0, 0.0], [0, 0, 0.6, 0.8])
T_CAM_DEPTH = pose_matrix([-0.025, 0.002, 0.001], Rotation.from_rotvec([0.004, -0.006, 0.002]).as_quat())
STEP = 500_000_000
POSES = mapping_poses(keyframes=16, seed=2)[:4]


@pytest.fixture(scope="module")
def gallery():
    return Gallery(build_room(seed=0, pixels_per_metre=40))


@pytest.fixture(scope="module")
def frames(gallery):
    """(stamp, JPEG, depth [H, W], T_map_cam) of four views."""
    views = [gallery.render(CAMERA, T) for T in POSES]
    return [
        (START + i * STEP, cv2.imencode(".jpg", view.image)[1].tobytes(), view.depth, T)
        for i, (view, T) in enumerate(zip(views, POSES))
    ]


def messages_of(frames, **options):
    return rgbd_messages(frames, CAMERA, T_BASE_CAM, T_MAP_ODOM, **options)


def without(messages, *topics):
    return [message for message in messages if message[1] not in topics]


def builder(points=150):
    return KeyframeBuilder(PlaceBackbone(), points, background=16)


def assert_on_the_surface(keyframe, gallery, T_map_cam, tolerance=0.005):
    np.testing.assert_allclose(keyframe.T_map_cam, T_map_cam, atol=1e-6)
    local = (keyframe.points.astype(float) - T_map_cam[:3, 3]) @ T_map_cam[:3, :3]
    x, y = np.rint(pixels_of(keyframe.fine)).astype(int).T
    error = np.abs(local[:, 2] / gallery.render(CAMERA, T_map_cam).depth[y, x] - 1)
    assert len(local) > 30 and np.median(error) < tolerance and np.quantile(error, 0.9) < 4 * tolerance


@pytest.mark.parametrize(
    "storage, encoding",
    [
        ("mcap", "16UC1; compressedDepth png"),
        ("mcap", "32FC1; compressedDepth png"),
        ("mcap", "16UC1"),
        ("sqlite3", "32FC1"),
    ],
)
def test_a_bag_becomes_a_map(tmp_path, gallery, frames, storage, encoding):
    bag = write_messages(tmp_path / "bag", messages_of(frames, depth_encoding=encoding), storage)
    source = bag_source(bag)
    assert source.names() == [f"{(START + i * STEP) // 10**9}.{(START + i * STEP) % 10**9:09d}" for i in range(4)]
    assert source.frame_id == "map" and "poses from /tf" in source.notes[0]
    for name, (stamp, _, _, T) in zip(source.names(), frames):
        keyframe = source.keyframe(name, builder())
        assert keyframe.stamp == stamp
        assert_on_the_surface(keyframe, gallery, T)


def test_poses_come_from_a_pose_topic(tmp_path, frames):
    """Of the camera and of the base; stamped between the images, so that they are interpolated."""
    messages = without(messages_of(frames), "/tf")
    T_cam_base = np.linalg.inv(T_BASE_CAM)
    expected = []
    for stamp, _, _, T in frames:
        turn = Rotation.from_rotvec([0.01, 0.02, -0.01])
        for shift in (-1, 1):
            moved = T.copy()
            moved[:3, :3] = T[:3, :3] @ Rotation.from_rotvec(shift * turn.as_rotvec()).as_matrix()
            moved[:3, 3] += shift * np.array([0.02, 0.0, 0.01])
            at = stamp + shift * 10_000_000
            messages.append((at, "/camera_pose", "pose", pose_message(at, "world", moved)))
            messages.append((at, "/base_odom", "odometry", odometry_message(at, "world", "base", moved @ T_cam_base)))
        expected.append(T)
    bag = write_messages(tmp_path / "bag", messages)
    for options in ({"poses": "/camera_pose"}, {"poses": "/base_odom"}, {"poses": "/base_odom", "pose_of": "base"}):
        source = bag_source(bag, BagOptions(**options))
        assert source.frame_id == "world"
        for name, T in zip(source.names(), expected):
            found = source.pose(name)[1]
            np.testing.assert_allclose(found[:3, :3], T[:3, :3], atol=1e-6)
            # the base is on an arm: its way between two poses bends by arm x angle^2 / 2
            assert np.linalg.norm(found[:3, 3] - T[:3, 3]) < (1e-9 if options["poses"] == "/camera_pose" else 2e-4)


def test_without_a_map_frame_the_poses_are_in_odom(tmp_path, frames):
    messages = [
        (at, topic, kind, tf_message(at, [("odom", "base", np.linalg.inv(T_MAP_ODOM) @ T @ np.linalg.inv(T_BASE_CAM))]))
        for stamp, _, _, T in frames
        for at in (stamp - 10**7, stamp + 10**7)
        for topic, kind in [("/tf", "tf")]
    ]
    bag = write_messages(tmp_path / "bag", without(messages_of(frames), "/tf") + messages)
    source = bag_source(bag)
    assert source.frame_id == "odom"
    report = build_map(source, builder(), tmp_path / "m.db", progress=False)
    from nre_ros.keyframes.storage.store import KeyframeStore
    from nre_ros.keyframes.tools.info import describe_map

    with KeyframeStore.open(report.path) as store:
        assert describe_map(store).frame_id == "odom"
        np.testing.assert_allclose(
            store.load(store.names().values())[0].T_map_cam, np.linalg.inv(T_MAP_ODOM) @ frames[0][3], atol=1e-6
        )
    with pytest.raises(ImportSourceError, match='"map" passed to lookupTransform.*the bag has: .*/tf_static'):
        bag_source(bag, BagOptions(frame="map"))


def test_depth_of_a_separate_camera_is_registered(tmp_path, gallery, frames):
    messages = without(messages_of(frames), "/camera/depth/image")
    messages.append((START - 10**9, "/tf_static", "tf", tf_message(START, [(OPTICAL, "depth_optical", T_CAM_DEPTH)])))
    for stamp, _, _, T in frames:
        depth = gallery.render(DEPTH_CAMERA, T @ T_CAM_DEPTH).depth
        messages.append((stamp, "/camera/depth/image", "image", depth_message(stamp, "depth_optical", depth, "16UC1")))
        messages.append(
            (stamp, "/camera/depth/camera_info", "info", camera_info_message(stamp, "depth_optical", DEPTH_CAMERA))
        )
    source = bag_source(write_messages(tmp_path / "bag", messages))
    assert source.recording.topics.depth_info == "/camera/depth/camera_info"
    for name, (_, _, _, T) in zip(source.names(), frames):
        assert_on_the_surface(source.keyframe(name, builder()), gallery, T, tolerance=0.01)
    unrelated = [message for message in messages if message[1] != "/camera/depth/camera_info"]
    with pytest.raises(ImageError, match="depth is in frame depth_optical, the image in camera_optical.*--depth-info"):
        other = bag_source(write_messages(tmp_path / "unrelated", unrelated))
        other.depth(other.names()[0])


def test_images_without_depth_are_triangulated(tmp_path, gallery):
    """Six views of a wall with pictures from places beside each other; the points are where the room is."""
    camera = Camera(320, 240, 260.0, 262.0, 159.5, 119.5)
    poses = [POSES[0] @ pose_matrix([0.12 * i, 0.02 * (i % 2), 0.0], [0, 0, 0, 1]) for i in range(6)]
    frames = []
    for i, T in enumerate(poses):
        image = gallery.render(camera, T).image
        frames.append((START + i * STEP, cv2.imencode(".png", image)[1].tobytes(), np.ones((240, 320)), T))
    messages = without(rgbd_messages(frames, camera, T_BASE_CAM, T_MAP_ODOM), "/camera/depth/image")
    source = bag_source(write_messages(tmp_path / "bag", messages))
    keyframe = source.keyframe(source.names()[2], builder())
    T = poses[2]
    local = (keyframe.points.astype(float) - T[:3, 3]) @ T[:3, :3]
    x, y = np.rint(pixels_of(keyframe.fine)).astype(int).T
    error = np.abs(local[:, 2] / gallery.render(camera, T).depth[y, x] - 1)
    assert len(local) > 30 and np.median(error) < 0.02


def test_ambiguous_or_missing_topics_have_to_be_named(tmp_path, frames):
    messages = messages_of(frames)
    grey = [image_message(stamp, OPTICAL, np.zeros((120, 160, 3), np.uint8), "mono8") for stamp, *_ in frames]
    messages += [(stamp, "/left/image_raw", "image", image) for (stamp, *_), image in zip(frames, grey)]
    bag = write_messages(tmp_path / "bag", messages)
    with pytest.raises(ImportSourceError, match="several image topics .*name one; it has: .*/left/image_raw.*/tf"):
        bag_source(bag)
    chosen = bag_source(bag, BagOptions(image="/camera/color/image_raw/compressed"))
    assert chosen.recording.topics.camera_info == "/camera/color/camera_info"
    with pytest.raises(ImportSourceError, match="no image topic /nothing; it has: .*/camera/depth/image"):
        bag_source(bag, BagOptions(image="/nothing"))
    with pytest.raises(ImportSourceError, match="no pose topic /nothing; it has"):
        bag_source(bag, BagOptions(image="/left/image_raw", poses="/nothing"))
    poseless = write_messages(tmp_path / "poseless", without(messages_of(frames), "/tf", "/tf_static"))
    with pytest.raises(ImportSourceError, match="no /tf and no pose topic; it has: /camera/color/camera_info"):
        bag_source(poseless)
    infoless = write_messages(tmp_path / "infoless", without(messages_of(frames), "/camera/color/camera_info"))
    with pytest.raises(ImportSourceError, match="no camera_info topic"):
        bag_source(infoless)


def test_missing_transforms_and_loops_of_transforms_are_reported(tmp_path, frames):
    static = without(messages_of(frames), "/tf")
    bag = write_messages(tmp_path / "missing", static)
    with pytest.raises(ImportSourceError, match="no image of .* has a pose: .*odom.*does not exist"):
        bag_source(write_messages(tmp_path / "none", static + [(START, "/tf", "tf", tf_message(START, []))]))
    assert bag.exists()
    loop = [("odom", "wheel", np.eye(4)), ("base", "link", np.eye(4)), ("link", "base", np.eye(4))]
    around = [(at, "/tf", "tf", tf_message(at, loop)) for stamp, *_ in frames for at in (stamp - 10**7, stamp + 10**7)]
    with pytest.raises(ImportSourceError, match="no image of .* has a pose: .*contains a loop"):
        bag_source(write_messages(tmp_path / "loop", static + around))
    # a look-up that ends within the loop finds an answer, as tf2's does
    short = [
        (at, "/tf", "tf", tf_message(at, [("odom", "base", np.eye(4)), ("base", "odom", np.eye(4))]))
        for stamp, *_ in frames
        for at in (stamp - 10**7, stamp + 10**7)
    ]
    source = bag_source(write_messages(tmp_path / "short", static + short))
    assert any("the transforms contain a loop: odom -> base -> odom" in note for note in source.notes)
    # the transforms end before the last image: it is left out, the others are there
    early = [message for message in messages_of(frames) if message[1] != "/tf" or message[0] < frames[3][0]]
    source = bag_source(write_messages(tmp_path / "early", early))
    with pytest.raises(PoseError, match="extrapolation into the future"):
        source.keyframe(source.names()[3], builder())
    report = build_map(source, builder(), tmp_path / "m.db", progress=False)
    assert (report.keyframes, len(report.skipped)) == (3, 1)


def test_faults_of_single_messages_are_reported_and_the_rest_is_imported(tmp_path, frames):
    messages = without(messages_of(frames), "/tf")
    for i, (stamp, *_, T) in enumerate(frames):
        pose = pose_message(stamp, "map", T)
        if i == 1:
            pose.pose.position.x = float("nan")
        if i == 2:
            pose.pose.orientation.w += 0.5
        messages.append((stamp, "/pose", "pose", pose))
    bag = write_messages(tmp_path / "poses", messages)
    source = bag_source(bag, BagOptions(poses="/pose"))
    assert any("2 poses of /pose are not finite or no unit quaternion" in note for note in source.notes)

    spoilt = messages_of(frames)
    for k, (at, topic, kind, message) in enumerate(spoilt):
        if topic.endswith("compressed") and message.header.stamp.nanosec == 0 and at < START + STEP:
            spoilt[k] = at, topic, kind, encoded_message(START, OPTICAL, frames[0][1][:500])
        if topic == "/camera/depth/image" and START + STEP <= at < START + 2 * STEP:
            small = frames[1][2][::2, ::2]
            spoilt[k] = at, topic, kind, depth_message(START + STEP, OPTICAL, small, "16UC1; compressedDepth png")
    spoilt = [m for m in spoilt if m[1] != "/camera/depth/image" or not frames[2][0] <= m[0] < frames[3][0]]
    report = build_map(
        bag_source(write_messages(tmp_path / "spoilt", spoilt)), builder(), tmp_path / "m.db", progress=False
    )
    assert report.keyframes == 1 and len(report.skipped) == 3
    reasons = " / ".join(report.skipped.values())
    for words in ("truncated", "depth of 80x60 pixels, its camera has 160x120", "no depth image within 0.02 s"):
        assert words in reasons


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_a_recording_that_broke_off_is_imported_up_to_its_end(tmp_path, gallery, frames, storage):
    """The recorder was killed: no metadata.yaml, and an MCAP file without its end."""
    many = [(START + i * STEP, *frames[i % 4][1:]) for i in range(40)]  # several chunks of an MCAP file
    bag = write_messages(tmp_path / "bag", messages_of(many, depth_encoding="32FC1"), storage)
    (file,) = [file for file in bag.iterdir() if file.suffix != ".yaml"]
    (bag / "metadata.yaml").unlink()
    if storage == "mcap":
        torn = tmp_path / "torn.mcap"
        records = file.read_bytes()
        torn.write_bytes(records[: len(records) * 9 // 10])
        with pytest.raises(ImportSourceError):
            bag_source(_cut(tmp_path / "stump.mcap", records, 3))
        os.replace(torn, file)
    source = bag_source(bag)
    whole = [f"{(START + i * STEP) // 10**9}.{(START + i * STEP) % 10**9:09d}" for i in range(40)]
    kept = source.names()
    assert kept == whole[: len(kept)] and len(kept) >= (10 if storage == "mcap" else 40)
    assert_on_the_surface(source.keyframe(kept[9], builder()), gallery, many[9][3])
    assert any(note.startswith(f"bag {bag}") for note in source.notes)


def _cut(path, data, length):
    path.write_bytes(data[:length])
    return path


def test_damage_in_a_bag_costs_only_the_messages_there(tmp_path, frames):
    many = [(START + i * STEP, *frames[i % 4][1:]) for i in range(12)]
    bag = write_messages(tmp_path / "bag", messages_of(many), "sqlite3")
    whole = bag_source(bag)
    shutil.copytree(bag, tmp_path / "damaged")
    (file,) = (tmp_path / "damaged").glob("*.db3")
    data = bytearray(file.read_bytes())
    middle = len(data) // 2 // 4096 * 4096
    data[middle : middle + 3 * 4096] = bytes(3 * 4096)
    file.write_bytes(data)
    try:
        source = bag_source(tmp_path / "damaged")
    except NreError as error:
        assert "\n" not in str(error)
        return
    report = build_map(source, builder(), tmp_path / "m.db", progress=False)
    assert 0 < report.keyframes <= len(whole.names())
    assert source.names() != whole.names() or report.skipped or source.notes != whole.notes


@pytest.mark.parametrize("content", [b"", b"no bag at all", b"\x89MCAP0\r\n"])
def test_files_that_are_no_bag_are_refused(tmp_path, content):
    for name in ("a.mcap", "a.db3", "a.bag", "a.txt"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ImportSourceError, match=name) as error:
            BagRecording(tmp_path / name)
        assert "\n" not in str(error.value)
    with pytest.raises(ImportSourceError, match="does not exist"):
        BagRecording(tmp_path / "none")


def test_the_kitchen_gives_the_same_keyframes_as_a_bag_and_as_a_folder(tmp_path, shared):
    """Four frames of the walk, as a bag and as a folder: the same points and descriptors, hence the same poses."""
    from nre_ros.features import choose_device, load_backbone
    from nre_ros.keyframes.importers.colmap.cameras import read_cameras_txt
    from nre_ros.keyframes.importers.rgbd.folder import RgbdFolderSource
    from nre_ros.keyframes.importers.text_trajectory import parse_tum_pose

    K = shared / "data/kitchen"
    names = (K / "map.txt").read_text().split()[:40:13]
    lines = [line for line in (K / "map_poses.txt").read_text().splitlines() if not line.startswith("#")][:40:13]
    (tmp_path / "list.txt").write_text("\n".join(names))
    (tmp_path / "poses.txt").write_text("\n".join(lines))
    frames = []
    for name, line in zip(names, lines):
        stamp, T = parse_tum_pose(line)
        depth = cv2.imread(str((K / "depth" / name).with_suffix(".png")), cv2.IMREAD_UNCHANGED) / np.float32(1000)
        frames.append((stamp, (K / "images" / name).read_bytes(), depth, T))
    camera = read_cameras_txt(K / "sparse/cameras.txt")[1]
    bag = bag_source(write_messages(tmp_path / "bag", rgbd_messages(frames, camera, T_BASE_CAM, T_MAP_ODOM)))
    folder = RgbdFolderSource(
        K / "images", K / "depth", tmp_path / "poses.txt", tmp_path / "list.txt", K / "sparse/cameras.txt"
    )
    backbone = load_backbone("xfeat", choose_device("cpu"))
    for in_bag, in_folder in zip(bag.names(), names):
        a = bag.keyframe(in_bag, KeyframeBuilder(backbone))
        b = folder.keyframe(in_folder, KeyframeBuilder(backbone))
        np.testing.assert_allclose(a.T_map_cam, b.T_map_cam, atol=1e-9)
        np.testing.assert_allclose(a.points, b.points, atol=1e-6)
        np.testing.assert_array_equal(a.coarse, b.coarse)
        np.testing.assert_array_equal(a.fine, b.fine)
        np.testing.assert_array_equal(a.global_descriptor, b.global_descriptor)


def test_the_command_builds_a_map_and_reports_its_topics(tmp_path, frames, capsys, monkeypatch):
    import argparse

    from nre_ros.cli import map as map_command

    monkeypatch.setattr("nre_ros.features.load_backbone", lambda name, *_: PlaceBackbone())
    elsewhere = frames[3][3] @ pose_matrix([0.5, 0, 0], [0, 0, 0, 1])
    again, torn = (frames[3][0] + STEP, *frames[3][1:]), (frames[3][0] + 2 * STEP, b"torn", frames[3][2], elsewhere)
    standing = [*frames, again, torn]
    messages = messages_of(standing)
    bag = write_messages(tmp_path / "bag", messages)
    parser = argparse.ArgumentParser(prog="nre_ros")
    map_command.add_parser(parser.add_subparsers(required=True))
    words = ["map", "build", "bag", bag, "-o", tmp_path / "m.db", "--points", 50, "--cull-motion", 0.01]
    args = parser.parse_args([str(word) for word in words])
    assert args.func(args) == 0
    out, err = capsys.readouterr()
    assert "images from /camera/color/image_raw/compressed, camera from /camera/color/camera_info, depth from" in err
    assert "6 images, poses in frame map" in err
    rows = [line.rsplit(None, 1) for line in out.splitlines()]
    table = {label.strip(): value for label, value in rows}
    assert (table["keyframes"], table["duplicates left out"], table["skipped"]) == ("4", "1", "1")
    assert any(line.startswith("skipped") and "cannot be decoded" in line for line in err.splitlines())


def test_each_image_has_the_intrinsics_of_its_stamp(tmp_path, gallery, frames):
    """The camera zooms after the second image; CameraInfo arrives before and after its image."""
    from nre_ros.evaluation.bag_input import BagInput
    from nre_ros.replay.bag import read_cameras

    zoomed = Camera(160, 120, 182.0, 183.0, 79.5, 59.5)
    used = [CAMERA, CAMERA, zoomed, zoomed]
    views = [gallery.render(camera, T) for camera, T in zip(used, POSES)]
    taken = [
        (stamp, cv2.imencode(".jpg", view.image)[1].tobytes(), view.depth, T)
        for (stamp, _, _, T), view in zip(frames, views)
    ]
    messages = without(messages_of(taken), "/camera/color/camera_info")
    for (stamp, *_), camera, delay in zip(taken, used, (40_000_000, 0, 40_000_000, 0)):
        info = camera_info_message(stamp, OPTICAL, camera)
        messages.append((stamp + delay, "/camera/color/camera_info", "info", info))
    bag = write_messages(tmp_path / "bag", messages)
    source = bag_source(bag)
    assert [source.camera(name) for name in source.names()] == used
    assert "/camera/color/camera_info has 2 different cameras: each image has that of its stamp" in source.notes
    assert dict(source.counts) == {"cameras": "2 different ones, each image with that of its stamp"}
    for name, T in zip(source.names()[2:], POSES[2:]):
        keyframe = source.keyframe(name, builder())
        local = (keyframe.points.astype(float) - T[:3, 3]) @ T[:3, :3]
        x, y = np.rint(pixels_of(keyframe.fine)).astype(int).T
        assert np.median(np.abs(local[:, 2] / gallery.render(zoomed, T).depth[y, x] - 1)) < 0.005
    queries = BagInput(bag, "/camera/color/image_raw/compressed", "/camera/color/camera_info").queries()
    assert [query.load()[1] for query in queries] == used
    cameras = read_cameras(bag, "/camera/color/camera_info")
    assert [cameras.at(stamp, stamp) for stamp, *_ in taken] == used


def test_cameras_without_stamps_are_those_of_the_time_of_recording():
    from nre_ros.messages.camera_history import CameraHistory

    history, other = CameraHistory(), Camera(160, 120, 182.0, 183.0, 79.5, 59.5)
    with pytest.raises(CameraError, match="no camera_info message"):
        history.at(START, START)
    unusable = camera_info_message(0, OPTICAL, CAMERA)
    unusable.k[:] = 0
    history.add(unusable, START - 1)
    history.add(camera_info_message(0, OPTICAL, CAMERA), START)
    history.add(camera_info_message(0, OPTICAL, other), START + 10)
    assert [history.at(7, START + after) for after in (-5, 0, 9, 10, 99)] == [CAMERA, CAMERA, CAMERA, other, other]
    assert [line.split(":")[0] for line in history.notes("/info")] == [
        "/info has 2 different cameras",
        "1 messages of /info are no camera and are ignored",
    ]


def test_an_image_without_a_stamp_has_the_camera_of_its_time_of_recording():
    from nre_ros.messages.camera_history import CameraHistory

    history, other = CameraHistory(), Camera(160, 120, 182.0, 183.0, 79.5, 59.5)
    for second, camera in enumerate((CAMERA, other)):  # stamps of simulated time
        history.add(camera_info_message((second + 1) * 10**9, OPTICAL, camera), START + second * 10**9)
    assert [history.at(0, START + half * 10**9 // 2) for half in (0, 1, 2)] == [CAMERA, CAMERA, other]
    assert [history.at(stamp * 10**9, START) for stamp in (1, 2)] == [CAMERA, other]


def test_images_without_stamps_are_placed_by_the_time_of_recording_and_counted(tmp_path, gallery, frames):
    messages = []
    for log_time, topic, kind, message in messages_of(frames):
        if kind in ("compressed", "info"):
            message.header.stamp.sec = message.header.stamp.nanosec = 0
        messages.append((log_time, topic, kind, message))
    bag = write_messages(tmp_path / "bag", messages)
    source = bag_source(bag)
    recorded = [stamp + 1_000_000 for stamp, *_ in frames]
    assert source.names() == [f"{stamp // 10**9}.{stamp % 10**9:09d}" for stamp in recorded]
    assert dict(source.counts) == {"without a stamp": "4 images, placed by the time of their recording"}
    for name, (_, _, _, T) in zip(source.names(), frames):
        assert_on_the_surface(source.keyframe(name, builder()), gallery, T)


def test_images_with_the_stamp_of_another_are_counted(tmp_path, frames):
    again = encoded_message(frames[0][0], OPTICAL, frames[0][1])
    image = "/camera/color/image_raw/compressed"
    bag = write_messages(tmp_path / "bag", [*messages_of(frames), (frames[1][0], image, "compressed", again)])
    source = bag_source(bag)
    assert len(source.names()) == 4
    assert dict(source.counts) == {"same stamp as another": "1 images, left out"}


def test_depth_in_another_unit_is_read_with_its_scale_and_refused_without(tmp_path, gallery, frames):
    millimetres = [(stamp, jpeg, 1000 * depth, T) for stamp, jpeg, depth, T in frames]
    bag = write_messages(tmp_path / "bag", messages_of(millimetres, depth_encoding="32FC1"))
    source = bag_source(bag)
    assert source.depth_unit() == 1.0
    with pytest.raises(ImageError, match="median depth of .* probably in another unit"):
        source.keyframe(source.names()[0], builder())
    source = bag_source(bag, BagOptions(depth_scale=1000.0))
    assert source.depth_unit() == 1000.0
    assert_on_the_surface(source.keyframe(source.names()[0], builder()), gallery, frames[0][3])
    with pytest.raises(ImportSourceError, match="depth scale -1"):
        bag_source(bag, BagOptions(depth_scale=-1.0))


def test_images_that_carry_the_frame_of_a_body_beside_an_optical_one_are_reported(tmp_path, frames, capsys):
    link, T_link_optical = "camera_link", pose_matrix([0.02, 0.0, 0.0], [-0.5, 0.5, -0.5, 0.5])
    messages = messages_of(frames)
    for _, _, kind, message in messages:
        if kind in ("compressed", "info"):
            message.header.frame_id = link
    static = [("base", link, T_BASE_CAM), (link, "camera_optical_frame", T_link_optical)]
    messages.append((frames[0][0] - 10**9, "/tf_static", "tf", tf_message(frames[0][0], static)))
    bag = write_messages(tmp_path / "bag", messages)
    warning = bag_source(bag, BagOptions(use_depth=False)).frame_warning
    assert "the images carry frame camera_link" in warning and "the optical axis of camera_optical" in warning
    assert "give --pose-frame body" in warning
    assert not bag_source(write_messages(tmp_path / "good", messages_of(frames))).frame_warning
    for options, warned in (([], True), (["--pose-frame", "body"], False)):
        main(["map", "build", "bag", str(bag), "--mono", "--diagnose", *options])
        assert ("warning: the images carry frame" in capsys.readouterr().err) == warned


# --- bags of unknown origin --------------------------------------------------------------------------


def open_files(folder):
    """Files of a folder that this process has open."""
    links = [Path("/proc/self/fd") / number for number in os.listdir("/proc/self/fd")]
    found = [os.readlink(link) for link in links if link.is_symlink()]
    return [name for name in found if name.startswith(str(folder))]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_a_bag_is_closed_whatever_happens(tmp_path, frames, storage, monkeypatch):
    bag = write_messages(tmp_path / "bag", messages_of(frames[:2]), storage)
    source = bag_source(bag)
    assert open_files(bag)
    for _ in range(2):
        source.close()
        assert not open_files(bag)
    with pytest.raises(ImportSourceError, match="/nothing"):
        bag_source(bag, BagOptions(image="/nothing"))
    assert not open_files(bag)
    monkeypatch.setattr("nre_ros.keyframes.importers.pose_agreement.check.check_poses", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["map", "build", "bag", str(bag), "-o", str(tmp_path / "m.db")])
    assert not open_files(bag)


@pytest.mark.parametrize(
    "statements, named",
    [
        (["CREATE TRIGGER t AFTER INSERT ON messages BEGIN DELETE FROM topics; END"], "the trigger 't'"),
        (["CREATE VIEW everything AS SELECT * FROM messages"], "the view 'everything'"),
        (["CREATE VIRTUAL TABLE words USING fts5(a)"], "the virtual table 'words'"),
    ],
)
def test_a_bag_in_which_sqlite_would_run_something_is_refused(tmp_path, frames, statements, named):
    bag = write_messages(tmp_path / "bag", messages_of(frames[:1]), "sqlite3")
    (file,) = bag.glob("*.db3")
    with contextlib.closing(sqlite3.connect(file)) as db:
        for statement in statements:
            db.execute(statement)
        db.commit()
    for path in (bag, file):
        with pytest.raises(ImportSourceError, match=named):
            bag_source(path)


def test_sqlite_trusts_neither_schema_nor_pages_of_a_bag(tmp_path, frames):
    from nre_ros.messages.bag import open_bag

    bag = write_messages(tmp_path / "bag", messages_of(frames[:1]), "sqlite3")
    with open_bag(bag) as reader:
        (storage,) = reader.readers[0].storage.storages
        found = [next(storage.dbconn.execute(f"PRAGMA {name}"))[0] for name in ("trusted_schema", "cell_size_check")]
    assert found == [0, 1]


def test_a_bag_without_metadata_is_read_by_importers_and_the_cure_is_reported(tmp_path, frames):
    for storage in ("mcap", "sqlite3"):
        bag = write_messages(tmp_path / storage, messages_of(frames), storage)
        whole = bag_source(bag).names()
        (bag / "metadata.yaml").unlink()
        with pytest.raises(ImportSourceError, match=f"bag {bag} has no metadata.yaml: `ros2 bag reindex {bag}`"):
            with open_bag(bag):
                pass
        source = bag_source(bag)
        assert source.names() == whole
        assert any(f"bag {bag}: has no metadata.yaml: `ros2 bag reindex" in note for note in source.notes)


def test_a_folder_above_a_bag_is_refused_and_the_bag_in_it_named(tmp_path, frames):
    bag = write_messages(tmp_path / "kitchen", messages_of(frames))
    for folder, words in ((tmp_path, f"{tmp_path} is no bag: .*{bag} in it"), (tmp_path / "empty", "empty is no bag")):
        folder.mkdir(exist_ok=True)
        with pytest.raises(ImportSourceError, match=words):
            bag_source(folder)


def test_a_bag_without_static_transforms_is_refused_with_the_cure(tmp_path, frames):
    messages = [message for message in messages_of(frames) if message[1] != "/tf_static"]
    bag = write_messages(tmp_path / "bag", messages)
    with pytest.raises(ImportSourceError, match=f"bag {bag} has a pose: .* no /tf_static.*record it from the start"):
        bag_source(bag)
