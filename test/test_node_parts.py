# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Parts of the node by themselves: stamps, the choice of images and intrinsics, hints, and memory that runs out."""

import time
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: a ROS installation or requirements/ros.txt")
pytest.importorskip("nre_ros.msg", reason="needs the generated messages: make setup or colcon")

import torch
from ros_process import CAMERA, assert_pose, camera_info, jpeg_image, raw_image

from nre_ros.gate.gate import Gate
from nre_ros.node import engine as engines
from nre_ros.node.conversions import stamp_message
from nre_ros.node.engine import Engine
from nre_ros.node.hints import Hint, Hints
from nre_ros.node.inputs import CameraInput
from nre_ros.node.seldom import SeldomLog
from nre_ros.node.times import Times

S = 10**9
NOW = 1_700_000_000 * S
GREY = np.zeros((2, 2, 3), np.uint8)


class Silent:
    """Takes whatever is logged, subscribed or made."""

    def __getattr__(self, name):
        return lambda *args, **kwargs: SimpleNamespace(unregister=lambda: None)


class Clock(Silent):
    def now(self):
        return SimpleNamespace(nanoseconds=NOW)


@pytest.fixture
def times():
    told = []
    node = SimpleNamespace(get_clock=Clock)
    times = Times(node, SeldomLog(Silent()), told.append)
    times.told = told
    return times


def test_an_image_ahead_of_the_clock_is_refused_and_makes_no_other_one_old(times):
    for seconds in (2, 5, 3600):
        times.arrived(NOW + seconds * S)
        assert "ahead of this node's clock" in times.refusal(NOW + seconds * S)
    times.arrived(NOW)
    assert not times.told and times.refusal(NOW) == ""
    assert times.by_now() == pytest.approx(NOW, abs=S)


def test_an_image_that_waited_is_dropped_and_one_that_came_late_is_another_time(times):
    """Two cameras, of which one is worked on for long: the order of arrival tells the one from the other."""
    times.arrived(NOW - 4 * S)
    times.arrived(NOW - 2 * S)
    assert times.refusal(NOW - 4 * S) == times.refusal(NOW - 2 * S) == "" and not times.told
    assert "2.0 s newer" in times.refusal(NOW - 4 * S) and not times.told
    times.arrived(NOW - 9 * S)
    assert times.told == ["the images' stamps, by 7.0 s, went back"] and times.refusal(NOW - 9 * S) == ""


@pytest.fixture
def camera():
    taken = []
    entities = SimpleNamespace(subscription=lambda kind, topic, *_: topic)
    node = SimpleNamespace(
        get_parameter=lambda name: SimpleNamespace(value={"image_transport": "auto", "max_rate": 0.0}[name]),
        resolve_topic_name=lambda name, only_expand=False: name,
    )
    camera = CameraInput(node, entities, "", lambda source, message: taken.append(message.header.stamp.sec))
    camera.taken = taken
    return camera


def test_of_two_transports_a_frame_apart_each_image_is_taken_once(camera):
    for raw, jpeg in ((1, None), (2, 1), (3, 2), (4, 3)):
        camera._on_raw(raw_image(GREY, raw * S // 2))
        if jpeg:
            camera._on_compressed(jpeg_image(GREY, jpeg * S // 2))
    assert camera.received == 4
    # the raw images end: the others go on
    for jpeg in (4, 5, 6):
        camera._on_compressed(jpeg_image(GREY, jpeg * S // 2))
    assert camera.received == 6


def test_an_image_is_taken_with_the_intrinsics_of_its_own_stamp(camera):
    assert camera.info_at(1) is None
    for second, focal_length in ((1, 500.0), (2, 500.0), (3, 700.0)):
        info = camera_info(k=[focal_length, 0.0, 160.0, 0.0, focal_length, 120.0, 0.0, 0.0, 1.0])
        info.header.stamp = stamp_message(second * S)
        camera._on_camera_info(info)
    assert [camera.info_at(second * S).k[0] for second in (1, 2, 3, 4)] == [500, 500, 700, 700]


@pytest.mark.parametrize("forgotten", [False, True])
def test_a_hint_that_is_forgotten_while_tf_is_asked_is_not_told(forgotten):
    frames = SimpleNamespace(map="map", base="base_link")
    gate = Gate()
    hints = Hints(SimpleNamespace(get_logger=Silent), Silent(), None, frames, lambda why: None)

    def between(*_):
        if forgotten:
            hints.give(None)
        return np.eye(4)

    hints._lookups = SimpleNamespace(between=between)
    hints.give(Hint(np.eye(4), 0.01 * np.eye(6), "map", "base_link", 0, "initialpose"))
    assert hints.pending
    hints.tell(gate, "camera", NOW, None, np.eye(4))
    assert (gate.predict(NOW) is None) == forgotten and not hints.pending


def test_without_memory_on_the_gpu_it_goes_on_on_the_cpu_and_tries_again(world, monkeypatch):
    values = {
        "create_map": False,
        "map_file": str(world.map_file),
        "device": "cpu",
        "seed": 0,
        "retrieve": 5,
        "min_confidence": 0.5,
    }
    node = SimpleNamespace(get_logger=Silent, get_parameter=lambda name: SimpleNamespace(value=values[name]))
    engine = Engine(node)
    localizer = engine._localizer
    localize, tried = localizer.localize, []

    def short_of_memory(*arguments, **options):
        tried.append((engine.device.type, options["retrieve"]))
        if engine.device.type != "cpu":
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return localize(*arguments, **options)

    monkeypatch.setattr(localizer, "localize", short_of_memory)
    localizer.device = torch.device("meta")  # stands for the GPU
    result = engine.localize(world.image, CAMERA)
    assert tried == [("meta", 5), ("meta", 2), ("meta", 1), ("cpu", 5)]
    assert_pose(result.T_map_cam, world.T_map_cam)
    assert engine.limitation == "out of memory on meta: on cpu" == engine.facts()["limitation"]
    # a minute later the device is asked for again, in vain
    moves = []

    def move(device):
        moves.append(device.type)
        if device.type == "meta":
            raise RuntimeError("CUDA out of memory")

    monkeypatch.setattr(localizer, "move_to", move)
    monkeypatch.setattr(engines, "choose_device", lambda _: torch.device("meta"))
    engine._again = time.monotonic() - 1
    assert_pose(engine.localize(world.image, CAMERA).T_map_cam, world.T_map_cam)
    assert moves == ["meta"] and engine.limitation == "meta: CUDA out of memory"
    engine.close()
