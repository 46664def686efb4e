# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Diagnostics, path, debug image and markers as a subscriber gets them, through DDS."""

import json
import pathlib
import sys
import threading
import time
from dataclasses import replace

import cv2
import numpy as np
import pytest
import yaml

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2: a ROS installation or requirements/ros.txt")
pytest.importorskip("nre_ros.msg", reason="needs the generated messages: make setup or colcon")

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus  # noqa: E402
from keyframe_samples import UTM, moved_map, random_keyframe  # noqa: E402
from nav_msgs.msg import Path  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rclpy.qos import DurabilityPolicy, QoSProfile  # noqa: E402
from sensor_msgs.msg import CompressedImage, Image, PointCloud2  # noqa: E402
from tf2_msgs.msg import TFMessage  # noqa: E402
from visualization_msgs.msg import Marker, MarkerArray  # noqa: E402

from nre_ros.gate.decision import Decision, State  # noqa: E402
from nre_ros.gate.observation import Observation  # noqa: E402
from nre_ros.keyframes.storage.store import KeyframeStore  # noqa: E402
from nre_ros.localization.result import LocalizationResult  # noqa: E402
from nre_ros.node.conversions import matrix_of_pose, matrix_of_transform, stamp_nanoseconds  # noqa: E402
from nre_ros.node.interfaces import MapVersion  # noqa: E402
from nre_ros.node.parameters import SECTIONS  # noqa: E402
from nre_ros.node.publishers import Displays  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[1]
STAMP = 1_700_000_000 * 10**9
COVARIANCE = np.diag([0.01**2, 0.03**2, 0.02**2, 0.001**2, 0.002**2, np.radians(0.5) ** 2])
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
GREEN = np.full((12, 16, 3), (0, 200, 0), np.uint8)


def at(x, y=0.0):
    T = np.eye(4)
    T[:2, 3] = x, y
    return T


def localized(T=None, confidence=0.9, **changes):
    """A result with two points in view, one that agrees and one that does not, and one out of view."""
    values = dict(
        T_map_cam=at(0) if T is None else T,
        covariance=COVARIANCE,
        confidence=confidence,
        points_used=1,
        points_considered=3,
        keyframes=(1, 2),
        points=np.array([[0, 0, 2], [0.5, 0, 2], [9, 9, 9.0]]),
        pixels=np.array([[100.0, 80.0], [200.0, 120.0], [-1.0, -1.0]]),
        losses=np.array([0.0, 0.9, 1.0]),
    )
    return LocalizationResult(**{**values, **changes})


def accepted(result):
    pose = {"T_map_cam": result.T_map_cam, "covariance": result.covariance, "confidence": result.confidence}
    return Decision(True, State.LOCALIZED, "it agrees", **pose)


class Listener:
    """The other side: subscribes when told to, and keeps what comes."""

    def __init__(self, node):
        self.node, self.messages = node, {}

    def subscribe(self, kind, topic, quality=10):
        heard = self.messages.setdefault(topic, [])
        subscription = self.node.create_subscription(kind, topic, heard.append, quality)
        return heard, subscription


@pytest.fixture
def world(tmp_path):
    """world.displays with a map of two keyframes, world.listener in another node, both spinning."""

    class World:
        facts = {"map": "kitchen.db"}

        def update(self, result=None, decision=None, state=State.LOCALIZED, stamp=STAMP, image=GREY, **faults):
            result = localized() if result is None else result
            if decision is None and result.success:
                decision = accepted(result)
            elif decision is None:
                decision = Decision(False, state, result.reason, judged=False)
            observation = Observation(stamp, camera_frame="optical", image=image, **faults)
            self.displays.diagnostics.image_arrived()
            self.displays.diagnostics.update(observation, decision, 40.0)
            self.displays.update(observation, result, decision, self.store)
            self.displays.publish_map(self.store)

        def until(self, condition, act=lambda: None, seconds=30.0):
            """Acts until the condition holds; returns its value."""
            deadline = time.monotonic() + seconds
            while not (value := condition()):
                assert time.monotonic() < deadline, "it never came"
                act()
                time.sleep(0.05)
            return value

    world = World()
    world.store = KeyframeStore.create(tmp_path / "map.db", "place", "0" * 64, "map", retrieval="none")
    for i in range(2):
        jpeg = cv2.imencode(".png", GREEN)[1].tobytes() if i else b""
        world.store.add(random_keyframe(f"k{i}", i, points=5, T_map_cam=at(i), thumbnail=jpeg))
    context = rclpy.Context()
    rclpy.init(context=context)
    # subscribers of the test before may not have vanished yet
    world.namespace = f"/views_{time.monotonic_ns()}"
    nodes = [
        rclpy.create_node(name, namespace=world.namespace, context=context) for name in ("localize_node", "listener")
    ]
    nodes[0].declare_parameters("", [(d.name, d.default, d.descriptor()) for d in SECTIONS["diagnostics and views"]])
    nodes[0].declare_parameter("lost_seconds", 10.0)  # of the gate
    world.node, world.listener = nodes[0], Listener(nodes[1])
    nodes[0].set_parameters([rclpy.Parameter("debug_rate", value=100.0)])
    world.displays = Displays(nodes[0], "map", lambda: world.facts)
    executor = SingleThreadedExecutor(context=context)
    for node in nodes:
        executor.add_node(node)
    ended = threading.Event()

    def spin():
        while not ended.is_set():
            executor.spin_once(timeout_sec=0.05)

    thread = threading.Thread(target=spin, daemon=True)
    thread.start()
    yield world
    ended.set()
    thread.join(10)
    world.displays.close()
    executor.shutdown()
    for node in nodes:
        node.destroy_node()
    context.shutdown()
    world.store.close()


GREY = np.full((240, 320, 3), 90, np.uint8)


def test_the_views_find_their_topics(world):
    """Those of the RViz configuration and the Foxglove layout, which are not other parts' of the node."""
    offered = {
        name.removeprefix(world.namespace): types
        for name, types in world.node.get_publisher_names_and_types_by_node("localize_node", world.namespace)
    }
    shown = {
        "Path": "nav_msgs/msg/Path",
        "MarkerArray": "visualization_msgs/msg/MarkerArray",
        "Image": "sensor_msgs/msg/Image",
    }
    manager = yaml.safe_load((ROOT / "config/localize.rviz").read_text())["Visualization Manager"]
    displays = [display for display in manager["Displays"] if display["Class"].split("/")[1] in shown]
    assert len(displays) == 4
    for display in displays:
        assert offered[display["Topic"]["Value"]] == [shown[display["Class"].split("/")[1]]]
    layout = json.loads((ROOT / "config/foxglove.json").read_text())["configById"]
    assert layout["Image!debug"]["imageMode"]["imageTopic"] in offered
    assert layout["DiagnosticSummary!all"]["topicToRender"] in offered


# --- diagnostics --------------------------------------------------------------------------------


def newest(world, heard):
    """The next status that is published from now on, and its values."""
    count = len(heard)
    message = world.until(lambda: heard[count:], world.displays.diagnostics.publish)[-1]
    (status,) = message.status
    return status, {value.key: value.value for value in status.values}


def test_diagnostics_report_the_state(world):
    heard, _ = world.listener.subscribe(DiagnosticArray, "/diagnostics")
    status, values = newest(world, heard)
    assert (status.level, status.message) == (DiagnosticStatus.WARN, "no image yet")
    assert (
        status.name == f"{world.namespace.lstrip('/')}/localize_node: localization".lstrip("/")
        and values["map"] == "kitchen.db"
    )

    world.update(LocalizationResult(reason="too dark"), state=State.UNLOCALIZED)
    status, values = newest(world, heard)
    assert (status.level, status.message) == (DiagnosticStatus.WARN, "not localized: too dark")
    assert values["accepted"] == "0%" and "confidence" not in values

    world.update()
    status, values = newest(world, heard)
    assert status.level == DiagnosticStatus.OK and status.message == "localized within 3.0 cm and 0.50 deg"
    assert values["accepted"] == "50%" and values["confidence"] == "0.90" and values["milliseconds an image"] == "40"
    assert float(values["position deviation (m)"]) == pytest.approx(0.03)
    assert float(values["rotation deviation (deg)"]) == pytest.approx(0.5)
    assert float(values["images a second"]) > 0 and values["state"] == "localized"

    rejected = Decision(False, State.LOST, "not accepted yet: 5.00 m from odometry")
    world.update(decision=rejected, state=State.LOST)
    status, _ = newest(world, heard)
    assert (status.level, status.message) == (DiagnosticStatus.WARN, f"lost: {rejected.reason}")

    world.update(localized(confidence=0.55))
    status, _ = newest(world, heard)
    assert status.level == DiagnosticStatus.WARN and "confidence of only 0.55" in status.message

    world.update(LocalizationResult(reason="no"), map_fault="map kitchen.db is gone")
    status, _ = newest(world, heard)
    assert (status.level, status.message) == (DiagnosticStatus.ERROR, "map kitchen.db is gone")
    world.update(LocalizationResult(reason="no"), device_fault="the device cuda is lost")
    status, _ = newest(world, heard)
    assert (status.level, status.message) == (DiagnosticStatus.ERROR, "the device cuda is lost")
    world.update()
    assert newest(world, heard)[0].level == DiagnosticStatus.OK

    world.displays.diagnostics.warn("frame camera_link", "camera_link is no optical frame")
    status, values = newest(world, heard)
    assert status.level == DiagnosticStatus.WARN and status.message.endswith("but camera_link is no optical frame")
    assert values["frame camera_link"] == "camera_link is no optical frame"
    world.displays.diagnostics.warn("frame camera_link", "")
    assert newest(world, heard)[0].level == DiagnosticStatus.OK

    world.displays.diagnostics.forget("~/clear was called")
    status, values = newest(world, heard)
    assert (status.level, status.message) == (DiagnosticStatus.WARN, "not localized: ~/clear was called")
    assert "confidence" not in values


def test_the_confidence_of_the_diagnostics_is_that_of_the_accepted_pose(world):
    """An alternative pose may be the accepted one, with a confidence of its own."""
    heard, _ = world.listener.subscribe(DiagnosticArray, "/diagnostics")
    result = localized(confidence=0.9)
    world.update(result, replace(accepted(result), confidence=0.31))
    status, values = newest(world, heard)
    assert values["confidence"] == "0.31" and "confidence of only 0.31" in status.message


def test_the_memory_of_a_lost_device_ends_no_diagnostics(monkeypatch):
    import torch

    from nre_ros.node.diagnostics import device_facts

    def lost(device):
        raise RuntimeError("CUDA error: unspecified launch failure\nCompile with ...")

    monkeypatch.setattr(torch.cuda, "mem_get_info", lost)
    facts = device_facts(torch.device("cuda"))
    assert facts["device error"] == "CUDA error: unspecified launch failure" and facts["device"] == "cuda"


def test_diagnostics_warn_when_the_last_pose_is_old(world):
    """The node may rest, by its mode."""
    heard, _ = world.listener.subscribe(DiagnosticArray, "/diagnostics")
    world.update(LocalizationResult(reason="its status was lost"), state=State.LOCALIZED)
    assert newest(world, heard)[0].level == DiagnosticStatus.WARN  # localized, it is said, but nobody knows where
    world.update()
    world.node.set_parameters([rclpy.Parameter("lost_seconds", value=0.2)])
    time.sleep(0.3)
    status, _ = newest(world, heard)
    assert status.level == DiagnosticStatus.WARN and status.message.endswith("0 s ago")


def test_diagnostics_are_stale_when_images_stop(world):
    heard, _ = world.listener.subscribe(DiagnosticArray, "/diagnostics")
    world.node.set_parameters([rclpy.Parameter("stale_after", value=0.4)])
    world.update()
    assert newest(world, heard)[0].level == DiagnosticStatus.OK
    stale = world.until(lambda: [m for m in heard if m.status[0].level == DiagnosticStatus.STALE])
    assert stale[0].status[0].message.startswith("no image for ")
    world.update()
    assert newest(world, heard)[0].level == DiagnosticStatus.OK


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
def test_the_memory_of_this_process_is_that_of_the_system():
    import torch

    from nre_ros.node.diagnostics import device_facts

    facts = device_facts(torch.device("cpu"))
    assert facts["device"] == "cpu"
    with open("/proc/self/status") as file:
        (kilobytes,) = [int(line.split()[1]) for line in file if line.startswith("VmRSS:")]
    assert float(facts["process memory (MB)"]) == pytest.approx(kilobytes / 2**10, rel=0.05)


# --- path ---------------------------------------------------------------------------------------


def test_a_late_subscriber_of_the_path_gets_the_newest_accepted_poses(world):
    world.node.set_parameters([rclpy.Parameter("path_length", value=3), rclpy.Parameter("path_spacing", value=0.1)])
    for i in range(40):
        world.displays.path.update(at(0.03 * i), STAMP + i)
    heard, _ = world.listener.subscribe(Path, "path", LATCHED)
    world.until(lambda: heard)
    later, _ = world.listener.subscribe(Path, "path", LATCHED)
    path = world.until(lambda: later)[-1]
    assert path.header.frame_id == "map" and stamp_nanoseconds(path.header.stamp) == STAMP + 36
    # 0, 0.12, 0.24, ...: every fourth
    assert [matrix_of_pose(p.pose)[0, 3] for p in path.poses] == pytest.approx([0.84, 0.96, 1.08])
    assert [stamp_nanoseconds(p.header.stamp) for p in path.poses] == [STAMP + i for i in (28, 32, 36)]
    world.displays.path.clear()
    world.until(lambda: not later[-1].poses)
    world.displays.path.update(at(0, 5), STAMP)
    last = world.until(lambda: later[-1].poses)
    assert [matrix_of_pose(p.pose)[:2, 3].tolist() for p in last] == [[0, 5]]


# --- debug image --------------------------------------------------------------------------------


def test_the_debug_image_shows_points_and_keyframes(world):
    heard, _ = world.listener.subscribe(Image, "debug_image")
    jpegs, _ = world.listener.subscribe(CompressedImage, "debug_image/compressed")
    message = world.until(lambda: heard and jpegs and heard[-1], world.update)
    assert message.encoding == "bgr8" and message.header.frame_id == "optical"
    assert stamp_nanoseconds(message.header.stamp) == STAMP and message.step == 3 * message.width
    picture = np.frombuffer(message.data, np.uint8).reshape(message.height, message.width, 3).astype(int)
    assert message.width > 320 and message.height > 240
    good, bad, elsewhere = picture[80, 100], picture[120, 200], picture[200, 40]
    assert good[1] > good[2] + 50 and bad[2] > bad[1] + 50 and (elsewhere == 90).all()
    beside = picture[:, 320:]
    assert ((beside == [0, 200, 0]).all(-1)).mean() > 0.1, "the thumbnail of the second keyframe"
    assert ((beside == 64).all(-1)).mean() > 0.1, "a grey place for the first, which has none"
    decoded = cv2.imdecode(np.frombuffer(jpegs[-1].data, np.uint8), cv2.IMREAD_COLOR)
    assert decoded.shape == picture.shape and np.abs(decoded - picture).mean() < 5


def test_nothing_is_drawn_without_a_subscriber(world, monkeypatch):
    def fail(*_):
        raise AssertionError("it was drawn")

    monkeypatch.setattr("nre_ros.node.debug_image.draw_debug", fail)
    monkeypatch.setattr("nre_ros.node.markers.Markers._fix_markers", fail)
    world.update()
    assert not world.displays.debug_image.has_subscribers and not world.displays.markers.has_subscribers
    world.listener.subscribe(Image, "debug_image")
    world.until(lambda: world.displays.debug_image.has_subscribers)
    with pytest.raises(AssertionError, match="it was drawn"):
        world.update()


# --- markers ------------------------------------------------------------------------------------


def test_markers_show_the_map_and_the_points_of_the_fix(world):
    maps, _ = world.listener.subscribe(MarkerArray, "markers/map", LATCHED)
    fixes, _ = world.listener.subscribe(MarkerArray, "markers/fix", LATCHED)
    world.until(lambda: maps and fixes, world.update)
    (cameras,) = maps[-1].markers
    assert (cameras.type, cameras.ns, cameras.header.frame_id) == (Marker.LINE_LIST, "keyframes", "map")
    assert len(cameras.points) == 2 * 16, "eight edges of two cameras"
    tips = {(round(p.x, 6), round(p.y, 6), round(p.z, 6)) for p in cameras.points[::16]}
    assert tips == {(0, 0, 0), (1, 0, 0)}, "the edges begin where the cameras are"
    fix = {marker.ns: marker for marker in fixes[-1].markers}
    assert len(fix["retrieved"].points) == 32 and len(fix["camera"].points) == 16
    assert [(p.x, p.y, p.z) for p in fix["points"].points] == [(0, 0, 2), (0.5, 0, 2)], "not the one out of view"
    good, bad = fix["points"].colors
    assert good.g > good.r and bad.r > bad.g

    # the map goes out once for each state that it is in
    world.update()
    time.sleep(0.3)
    assert len(maps) == 1
    world.store.add(random_keyframe("k2", 2, points=5, T_map_cam=at(2)))
    world.until(lambda: len(maps) > 1, world.update)
    assert len(maps[-1].markers[0].points) == 3 * 16

    # an image without a pose takes the points away
    nothing = LocalizationResult(reason="too dark", keyframes=(1,))
    count = len(fixes)
    world.until(lambda: fixes[count:], lambda: world.update(nothing))
    deleted = {m.ns for m in fixes[-1].markers if m.action == Marker.DELETE}
    assert deleted == {"camera", "points"}


def test_a_map_in_utm_is_shown_about_an_origin_that_tf_knows(world, tmp_path):
    """RViz computes in single precision, and a point cloud has no other."""
    far = KeyframeStore.open(moved_map(world.store.path, tmp_path / "far.db"))
    world.store.close()
    world.store = far
    listen = world.listener.subscribe
    maps, _ = listen(MarkerArray, "markers/map", LATCHED)
    fixes, _ = listen(MarkerArray, "markers/fix", LATCHED)
    clouds, _ = listen(PointCloud2, "map_points", LATCHED)
    fix_clouds, _ = listen(PointCloud2, "fix_points")
    paths, _ = listen(Path, "path", LATCHED)
    transforms, _ = listen(TFMessage, "/tf_static", LATCHED)
    result = localized(UTM)
    result = replace(result, points=result.points @ UTM[:3, :3].T + UTM[:3, 3])

    def show():
        world.update(result)
        world.displays.path.update(UTM, STAMP)

    world.until(lambda: maps and fixes and clouds and fix_clouds and paths and transforms, show)
    (transform,) = [t for t in transforms[-1].transforms if t.child_frame_id == "map_origin"]
    T = matrix_of_transform(transform.transform)
    assert transform.header.frame_id == "map" and T[:3, 3].tolist() == [500_000.0, 5_400_000.0, 0.0]
    (cameras,) = maps[-1].markers
    points = {marker.ns: marker for marker in fixes[-1].markers}["points"]
    expected = result.points[:2]
    shown = [[(p.x, p.y, p.z) for p in points.points], xyz(fix_clouds[-1])]
    for message, found in ((points, shown[0]), (fix_clouds[-1], shown[1])):
        assert message.header.frame_id == "map_origin"
        np.testing.assert_allclose(np.float32(found) + T[:3, 3], expected, rtol=0, atol=1e-4)
    assert cameras.header.frame_id == clouds[-1].header.frame_id == "map_origin"
    tips = np.array([(p.x, p.y, p.z) for p in cameras.points[::16]])
    np.testing.assert_allclose(np.float32(tips) + T[:3, 3], [UTM[:3, 3], (UTM @ at(1))[:3, 3]], rtol=0, atol=1e-4)
    stored = np.concatenate([far.get(i).points for i in (1, 2)])
    np.testing.assert_allclose(xyz(clouds[-1]) + T[:3, 3], stored, rtol=0, atol=1e-4)
    # what is in double precision stays in the map's frame
    assert paths[-1].header.frame_id == "map"
    np.testing.assert_allclose(matrix_of_pose(paths[-1].poses[-1].pose), UTM, rtol=0, atol=1e-9)
    assert len(transforms) == 1


def xyz(cloud):
    offsets = {field.name: field.offset for field in cloud.fields}
    layout = {"names": list("xyz"), "formats": 3 * ["<f4"], "offsets": [offsets[axis] for axis in "xyz"]}
    points = np.frombuffer(bytes(cloud.data), np.dtype({**layout, "itemsize": cloud.point_step}))
    return np.stack([points[axis] for axis in "xyz"], axis=-1).astype(np.float64)


def test_another_map_of_the_same_path_and_revision_is_shown(world):
    """~/load_map of a file that has been built again: the open map counts, not its path."""
    with KeyframeStore.open(world.store.path) as first, KeyframeStore.open(world.store.path) as second:
        assert (first.path, first.revision) == (second.path, second.revision)
        shown = MapVersion.of(first)
        assert shown.is_of(first) and not shown.is_of(second)


def test_an_unreadable_map_costs_only_the_markers(world):
    heard, _ = world.listener.subscribe(DiagnosticArray, "/diagnostics")
    world.listener.subscribe(MarkerArray, "markers/fix", LATCHED)
    world.until(lambda: world.displays.markers.has_subscribers)
    world.store.close()
    world.update()
    assert newest(world, heard)[0].level == DiagnosticStatus.OK
