# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The node's services and modes, and the pose that it remembers from one run to the next."""

import json
import time

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: a ROS installation or requirements/ros.txt")
pytest.importorskip("nre_ros.msg", reason="needs the generated messages: make setup or colcon")

from nre_ros.msg import LocalizationStatus
from nre_ros.srv import LoadMap, Relocalize, SaveMap
from rcl_interfaces.srv import GetParameters
from ros_process import TIMEOUT, assert_pose, camera_info, jpeg_image
from std_srvs.srv import Trigger

from nre_ros.keyframes.storage.store import KeyframeStore
from nre_ros.node.conversions import matrix_of_pose


def relocalize(robot, timeout, image=None):
    """Calls ~/relocalize, and sends an image until it has answered."""
    client = robot.node.create_client(Relocalize, "localize_node/relocalize")
    assert client.wait_for_service(TIMEOUT)
    future = client.call_async(Relocalize.Request(timeout=timeout))
    while not future.done():
        if image is not None:
            robot.publish(camera_info())
            robot.publish(jpeg_image(image, robot.now()))
        time.sleep(0.1)
    return robot.answer(future)


def test_in_mode_on_request_only_images_after_a_call_are_localized(world, start):
    _, robot = start(mode="on_request", first_fixes=2)
    for _ in range(5):
        robot.publish(camera_info())
        robot.publish(jpeg_image(world.image, robot.now()))
        time.sleep(0.2)
    assert not robot.statuses
    answer = relocalize(robot, 30.0, world.image)
    drops = dict(zip(answer.status.dropped_reasons, answer.status.dropped_counts))
    assert drops["mode"] >= 3, "the images before the call"
    assert answer.success and "localized at 0.05 0.15 1.30 in room" in answer.message
    assert answer.status.pose_valid and answer.status.state == LocalizationStatus.LOCALIZED
    assert_pose(matrix_of_pose(answer.status.pose.pose), world.T_map_cam)
    assert robot.wait(lambda: robot.poses)

    dark = np.zeros_like(world.image)
    failed = relocalize(robot, 8.0, dark)
    assert not failed.success and failed.message.startswith("not localized within 8.0 s: ")
    assert failed.status.reason and failed.status.reason in failed.message
    silent = relocalize(robot, 0.5)
    assert not silent.success and silent.message == "no image has been localized within 0.5 s"
    assert "timeout is -1" in relocalize(robot, -1.0).message


def test_in_mode_until_localized_images_are_dropped_after_the_first_pose(world, start):
    _, robot = start(mode="until_localized")
    assert robot.ask(jpeg_image(world.image, robot.now())).pose_valid
    heard = len(robot.statuses)
    for _ in range(5):
        robot.publish(jpeg_image(world.image, robot.now()))
        time.sleep(0.2)
    assert len(robot.statuses) == heard
    # cleared, it begins anew
    answer = robot.call(Trigger, "clear", Trigger.Request())
    assert answer.success
    robot.transforms.clear()
    assert robot.ask(jpeg_image(world.image, robot.now())).pose_valid
    assert not robot.set_parameter("mode", "sometimes").successful
    assert robot.set_parameter("mode", "continuous").successful
    assert robot.ask(jpeg_image(world.image, robot.now())).pose_valid


def test_clear_ends_the_broadcasts(world, start):
    _, robot = start()
    stamp = robot.now()
    robot.publish_odometry(np.eye(4), stamp)
    robot.ask(jpeg_image(world.image, stamp))
    assert robot.wait(lambda: len(robot.transforms) > 3)
    assert robot.call(Trigger, "clear", Trigger.Request()).success
    time.sleep(0.3)  # what was on its way
    robot.transforms.clear()
    time.sleep(0.5)
    assert not robot.transforms


def test_maps_are_saved_and_loaded_while_it_runs(world, start, tmp_path):
    node, robot = start()

    def load(path):
        return robot.call(LoadMap, "load_map", LoadMap.Request(map_file=str(path)))

    def save(path, overwrite=False):
        return robot.call(SaveMap, "save_map", SaveMap.Request(map_file=str(path), overwrite=overwrite))

    copy = tmp_path / "copy.db"
    assert save(copy).success
    with KeyframeStore.open(copy) as saved, KeyframeStore.open(world.map_file) as original:
        assert saved.names() == original.names() and saved.metadata() == original.metadata()
        assert np.array_equal(saved.get(3).points, original.get(3).points)
    again = save(copy)
    assert not again.success and again.message == f"map {copy} exists already"
    assert save(copy, overwrite=True).success
    assert f"map {world.map_file} is the open map itself" == save(world.map_file, overwrite=True).message
    assert "its folder is missing" in save(tmp_path / "none/copy.db").message
    assert load(copy).success and not load(tmp_path / "none.db").success
    (value,) = robot.call(GetParameters, "get_parameters", GetParameters.Request(names=["map_file"])).values
    assert value.string_value == str(copy), "it names the open map"
    assert not robot.set_parameter("map_file", str(world.map_file)).successful, "by hand only before configuring"

    (tmp_path / "text.db").write_text("these are no keyframes")
    for path, words in ((tmp_path / "none.db", "does not exist"), (tmp_path / "text.db", "not an SQLite file")):
        refused = load(path)
        assert not refused.success and str(path) in refused.message and words in refused.message
    with KeyframeStore.open(copy) as saved:
        backbone = saved.metadata()["backbone"], saved.metadata()["weights_hash"]
    KeyframeStore.create(tmp_path / "other.db", *backbone, "garage").close()
    assert "has the frame 'garage', all that is published is in 'room'" in load(tmp_path / "other.db").message
    assert robot.ask(jpeg_image(world.image, robot.now())).pose_valid, "what is refused changes nothing"

    KeyframeStore.create(tmp_path / "empty.db", *backbone, "room").close()
    loaded = load(tmp_path / "empty.db")
    assert loaded.success and "0 keyframes" in loaded.message
    assert "holds no keyframes" in robot.ask(jpeg_image(world.image, robot.now())).reason
    assert load(copy).success
    assert robot.ask(jpeg_image(world.image, robot.now())).pose_valid
    assert "Traceback" not in node.output


def test_the_last_pose_is_the_initial_pose_of_the_next_run(world, start, tmp_path):
    file = tmp_path / "last_pose.json"
    node, robot = start(last_pose_file=file)
    robot.ask(jpeg_image(world.image, robot.now()))
    assert node.stop() == 0
    saved = json.loads(file.read_text())
    np.testing.assert_allclose(saved["position"], world.T_map_cam[:3, 3], atol=0.03)
    assert [path.name for path in tmp_path.glob("last_pose*")] == [file.name]

    # fifty images would have to agree, without the initial pose
    node, robot = start(last_pose_file=file, first_fixes=50)
    status = robot.ask(jpeg_image(world.image, robot.now()))
    assert status.pose_valid and 0 <= status.metres < 0.05
    assert f"{file}: initial pose of the camera at" in node.output
    assert node.stop() == 0

    # a damaged file is told, and the robot is found without it
    file.write_text(file.read_text()[:60])
    node, robot = start(last_pose_file=file)
    node.wait_for(f"{file} holds no pose")
    assert robot.ask(jpeg_image(world.image, robot.now())).pose_valid
    assert node.stop() == 0
    assert json.loads(file.read_text())["map_frame"] == "room", "and it is whole again"
