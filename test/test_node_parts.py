# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Parts of the node by themselves: stamps, the choice of images and intrinsics, initial poses, and memory that runs out."""

import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: a ROS installation or requirements/ros.txt")
pytest.importorskip("nre_ros.msg", reason="needs the generated messages: make setup or colcon")

import rclpy
import torch
from geometry_msgs.msg import PoseWithCovarianceStamped
from nre_ros.msg import LocalizationStatus
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.serialization import serialize_message
from ros_process import CAMERA, assert_pose, camera_info, jpeg_image, raw_image
from sensor_msgs.msg import Image

from nre_ros.errors import ImageError
from nre_ros.gallery import camera_pose
from nre_ros.gate.decision import Decision, State
from nre_ros.gate.gate import Gate
from nre_ros.gate.last_pose import LastPose
from nre_ros.gate.observation import Observation
from nre_ros.gate.settings import GateSettings
from nre_ros.geometry import covariance_of_frame, invert, map_to_odom, position_quaternion
from nre_ros.localization.result import LocalizationResult
from nre_ros.messages.transform_buffer import TransformBuffer
from nre_ros.node import engine as engines
from nre_ros.node import lifecycle
from nre_ros.node.camera_input import CameraInput
from nre_ros.node.clock_monitor import ClockMonitor
from nre_ros.node.conversions import (
    matrix_of_pose,
    pose_message,
    stamp_message,
    stamp_nanoseconds,
    transform_message,
    translation_rotation,
)
from nre_ros.node.engine import Engine
from nre_ros.node.image_drops import DropCounter, ImageDrop
from nre_ros.node.initial_pose import InitialPose, InitialPoseInput
from nre_ros.node.lifecycle import LocalizeNode
from nre_ros.node.logs import ThrottledLogger
from nre_ros.node.parameters import DECLARATIONS, fixed_gate_settings, gate_settings
from nre_ros.node.pipeline import ImagePipeline
from nre_ros.node.serialized_image import SerializedImage
from nre_ros.node.worker import Worker

S = 10**9
NOW = 1_700_000_000 * S
GREY = np.zeros((2, 2, 3), np.uint8)


class Silent:
    """Accepts all calls of a logger or node."""

    def __getattr__(self, name):
        return lambda *args, **kwargs: SimpleNamespace(unregister=lambda: None)


class Clock(Silent):
    def now(self):
        return SimpleNamespace(nanoseconds=NOW)


@pytest.fixture
def clock():
    reasons = []
    node = SimpleNamespace(get_clock=Clock)
    clock = ClockMonitor(node, ThrottledLogger(Silent()), reasons.append)
    clock.reasons = reasons
    return clock


def test_an_image_ahead_of_the_clock_is_dropped_and_makes_no_other_one_old(clock):
    for seconds in (2, 5, 3600):
        clock.arrived(NOW + seconds * S)
        drop, reason = clock.check(NOW + seconds * S)
        assert drop == ImageDrop.FUTURE_STAMP and "ahead of this node's clock" in reason
    clock.arrived(NOW)
    assert not clock.reasons and clock.check(NOW) is None
    assert clock.current_stamp() == pytest.approx(NOW, abs=S)


def test_an_image_that_has_waited_is_dropped_and_one_that_arrives_late_shows_that_time_went_back(clock):
    """Two cameras, of which one is localized for long: the order of arrival distinguishes the two cases."""
    clock.arrived(NOW - 4 * S)
    clock.arrived(NOW - 2 * S)
    assert clock.check(NOW - 4 * S) is None and clock.check(NOW - 2 * S) is None and not clock.reasons
    drop, reason = clock.check(NOW - 4 * S)
    assert drop == ImageDrop.STALE_STAMP and "2.0 s newer" in reason and not clock.reasons
    clock.arrived(NOW - 9 * S)
    assert clock.reasons == ["the stamps of the images went back by 7.0 s"] and clock.check(NOW - 9 * S) is None


def test_a_newer_image_replaces_the_waiting_one_of_its_camera():
    worker = Worker(lambda error: None)  # not started: all offers wait
    assert not worker.offer("front", lambda: None) and not worker.offer("rear", lambda: None)
    assert worker.offer("front", lambda: None), "whoever offers it can count the replaced image"
    assert worker.discard_offers() == ["front", "rear"]
    assert not worker.offer("front", lambda: None)


def test_dropped_images_are_counted_by_camera_and_reason():
    drops = DropCounter()
    for name, drop in (("front", ImageDrop.REPLACED), ("front", ImageDrop.REPLACED), ("rear", ImageDrop.MODE)):
        drops.add(name, drop)
    assert drops.of_camera("front") == {"replaced": 2} and drops.of_camera("side") == {}
    assert drops.totals() == {"replaced": 2, "mode": 1}


def test_the_gate_settings_of_the_parameter_defaults_are_its_own_defaults():
    defaults = {declaration.name: declaration.default for declaration in DECLARATIONS}
    node = SimpleNamespace(get_parameter=lambda name: SimpleNamespace(value=defaults[name]))
    assert gate_settings(node) == GateSettings()
    assert set(fixed_gate_settings()) == {"rotation_drift_per_metre", "rotation_drift_per_second", "max_turn_rate"}


@pytest.fixture
def camera():
    taken, destroyed = [], []
    drops = DropCounter()
    interfaces = SimpleNamespace(
        subscription=lambda kind, topic, *_, **__: SimpleNamespace(topic_name=topic),
        latched_subscription=lambda *_: None,
        timer=lambda *_, **__: None,
        destroy=lambda subscription: destroyed.append(subscription.topic_name),
    )
    node = SimpleNamespace(
        get_logger=Silent,
        get_parameter=lambda name: SimpleNamespace(
            value={"image_transport": "auto", "depth_transport": "none", "max_rate": 0.0}[name]
        ),
        resolve_topic_name=lambda name, only_expand=False: name,
    )
    camera = CameraInput(node, interfaces, "", drops, lambda source, image: taken.append(image.message().header.stamp))
    camera.taken, camera.drops, camera.destroyed = taken, drops, destroyed
    return camera


def arrives(camera, message):
    transport = "raw" if isinstance(message, Image) else "compressed"
    camera._receive(transport, SerializedImage(type(message), serialize_message(message)))


def test_of_two_transports_a_frame_apart_each_image_is_taken_once(camera):
    for raw, jpeg in ((1, None), (2, 1), (3, 2), (4, 3)):
        arrives(camera, raw_image(GREY, raw * S // 2))
        if jpeg:
            arrives(camera, jpeg_image(GREY, jpeg * S // 2))
    assert camera.received == 4
    assert camera.drops.of_camera("") == {"duplicate": 3}
    # the raw images end: the others go on
    for jpeg in (4, 5, 6):
        arrives(camera, jpeg_image(GREY, jpeg * S // 2))
    assert camera.received == 6
    assert [stamp_nanoseconds(stamp) for stamp in camera.taken] == [k * S // 2 for k in range(1, 7)]


def test_beside_a_stream_of_images_the_other_transport_is_given_up_and_tried_again_after_a_loss(camera, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("nre_ros.node.camera_input.time", SimpleNamespace(monotonic=lambda: now[0]))

    def stream(make, first, count=6, seconds=0.1):
        for k in range(count):
            now[0] += seconds
            arrives(camera, make(GREY, (first + k) * S))
        camera._choose_transport()

    stream(jpeg_image, 1, seconds=1.0)
    assert camera.destroyed == [], "a slow camera: both transports cost little"
    stream(jpeg_image, 11)
    assert camera.destroyed == ["image"]
    camera._choose_transport()
    now[0] += 1.5
    camera._choose_transport()
    assert set(camera._subscriptions) == {"raw", "compressed"}, "the stream has ended"
    stream(raw_image, 21)
    assert camera.destroyed == ["image", "image/compressed"] and set(camera._subscriptions) == {"raw"}
    assert camera.received == 18 and camera.drops.totals() == {}


def test_no_image_of_the_next_round_is_a_duplicate_of_a_transport_that_was_given_up(camera, monkeypatch):
    """A looped bag: its stamps come again, long after the other transport has brought them."""
    now = [100.0]
    monkeypatch.setattr("nre_ros.node.camera_input.time", SimpleNamespace(monotonic=lambda: now[0]))
    for k in range(5):
        for make in (jpeg_image, raw_image):
            arrives(camera, make(GREY, (100 + k) * S // 10))
        now[0] += 0.1
    camera._choose_transport()
    assert camera.destroyed == ["image/compressed"]
    camera.drops = camera._drops = DropCounter()
    for round_ in range(2):
        for k in range(30):
            arrives(camera, raw_image(GREY, (100 + k) * S // 10 if round_ else (105 + k) * S // 10))
            now[0] += 0.1
    assert camera.drops.totals() == {}


def test_of_two_streams_the_raw_one_stays(camera):
    for k in range(1, 6):
        arrives(camera, jpeg_image(GREY, k * S))
        arrives(camera, raw_image(GREY, k * S))
    camera._choose_transport()
    assert camera.destroyed == ["image/compressed"] and camera.received == 5


@pytest.mark.parametrize("message", [raw_image(GREY, 5 * S + 7), jpeg_image(GREY, 2**31 * S - 1)])
def test_the_stamp_of_a_serialized_image_is_read_without_the_pixels(message):
    data = serialize_message(message)
    image = SerializedImage(type(message), data)
    assert image.stamp == stamp_nanoseconds(message.header.stamp) and image.message() == message
    for cut in (0, 3, 11, len(data) // 2):
        damaged = SerializedImage(type(message), data[:cut])
        assert damaged.stamp in (0, image.stamp)
        with pytest.raises(ImageError, match="cannot be deserialized"):
            damaged.message()


def test_an_image_is_taken_with_the_intrinsics_of_its_own_stamp(camera):
    assert camera.camera_info_at(1) is None
    for second, focal_length in ((1, 500.0), (2, 500.0), (3, 700.0)):
        info = camera_info(k=[focal_length, 0.0, 160.0, 0.0, focal_length, 120.0, 0.0, 0.0, 1.0])
        info.header.stamp = stamp_message(second * S)
        camera._on_camera_info(info)
    assert [camera.camera_info_at(second * S).k[0] for second in (1, 2, 3, 4)] == [500, 500, 700, 700]


@pytest.mark.parametrize("forgotten", [False, True])
def test_an_initial_pose_that_is_forgotten_while_tf_is_asked_is_not_applied(forgotten):
    frames = SimpleNamespace(map="map", base="base_link")
    gate = Gate()
    initial_pose = InitialPoseInput(SimpleNamespace(get_logger=Silent), Silent(), None, frames, lambda reason: None)

    def between(*_):
        if forgotten:
            initial_pose.set(None)
        return np.eye(4)

    initial_pose._lookups = SimpleNamespace(between=between)
    initial_pose.set(InitialPose(np.eye(4), 0.01 * np.eye(6), "base_link", 0, "initialpose"))
    assert initial_pose.pending
    observation = Observation(NOW, camera_frame="camera")
    initial_pose.apply(gate, observation)
    assert (gate.predict(observation) is None) == forgotten and not initial_pose.pending


def test_without_memory_on_the_gpu_it_goes_on_on_the_cpu_and_tries_again(world, monkeypatch):
    values = {
        "create_map": False,
        "map_file": str(world.map_file),
        "device": "cpu",
        "lost_device": "report",
        "threads": 0,
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
    engine._retry_at = time.monotonic() - 1
    assert_pose(engine.localize(world.image, CAMERA).T_map_cam, world.T_map_cam)
    assert moves == ["meta"] and engine.limitation == "meta: CUDA out of memory"
    engine.close()


def test_deactivation_ends_in_time_although_a_computation_does_not(world, monkeypatch):
    """The executor's only thread waits for the worker: without a limit nobody could even ask for the state."""
    monkeypatch.setattr(lifecycle, "_END_SECONDS", 0.2)
    release, started = threading.Event(), threading.Event()
    arguments = ["--ros-args", "-p", f"map_file:={world.map_file}"]
    rclpy.init(args=arguments)
    try:
        node = LocalizeNode(arguments)
        assert node.start()
        worker = node._active.worker
        assert worker.request(lambda: (started.set(), release.wait(60))) and started.wait(10)
        before = time.monotonic()
        assert node.trigger_deactivate() != TransitionCallbackReturn.SUCCESS
        assert time.monotonic() - before < 10
        assert node.failure == "the computation under way does not end: end the process and start it again"
        assert not node.close(0.1) and worker.running
        release.set()
        assert node.close(10) and not worker.running
        node.destroy_node()
    finally:
        release.set()
        rclpy.shutdown()


def test_a_debug_image_that_fails_takes_no_status_back(monkeypatch):
    """The pose of the image is out already: one status, no dropped image, and the error in the log."""
    published, logged, drops = [], [], DropCounter()

    def fails(*args):
        raise RuntimeError("a picture cannot be drawn")

    publishers = SimpleNamespace(publish_status=published.append)
    names = ("mode", "clock", "initial_pose", "map_odom", "propagation", "last_pose", "worker")
    parts = dict.fromkeys(names, Silent())
    optical_frames = SimpleNamespace(check=lambda frame: "")
    node, frames = SimpleNamespace(get_logger=Silent), SimpleNamespace(camera="camera", map="map")
    pipeline = ImagePipeline(
        node, SimpleNamespace(store=None), Gate(), frames, Silent(),
        **parts, drops=drops, publishers=publishers, displays=SimpleNamespace(update=fails, diagnostics=Silent()), optical_frames=optical_frames,
    )  # fmt: skip
    status = LocalizationStatus(pose_valid=True)
    monkeypatch.setattr(
        pipeline, "_process", lambda *args: (LocalizationResult(), Decision(False, State.LOST, ""), status)
    )
    monkeypatch.setattr("nre_ros.node.pipeline.log_exception", lambda node, error: logged.append(str(error)))
    source = SimpleNamespace(camera_info_at=lambda stamp: None, depth=None)
    pipeline.process(Observation(NOW, message=raw_image(GREY, NOW), arrival=time.monotonic()), source)
    assert published == [status] and logged == ["a picture cannot be drawn"]
    assert drops.totals() == {}


def forward(metres):
    T = np.eye(4)
    T[2, 3] = metres
    return T


def test_poses_in_utm_keep_their_precision_in_messages_transforms_and_files(tmp_path):
    """To a tenth of a micrometre, where single precision would be half a metre."""
    from keyframe_samples import UTM
    from rclpy.serialization import deserialize_message
    from tf2_msgs.msg import TFMessage

    T_map_cam = UTM @ camera_pose([1.0, -2.0, 0.5], 0.3)
    T_odom_cam, T_base_cam = camera_pose([0.4, 0.2, 0.1], -0.2), camera_pose([0.1, 0, 0.3], 0.0)
    pose = PoseWithCovarianceStamped()
    pose.pose.pose = pose_message(T_map_cam)
    pose = deserialize_message(serialize_message(pose), PoseWithCovarianceStamped)
    np.testing.assert_allclose(matrix_of_pose(pose.pose.pose), T_map_cam, rtol=0, atol=1e-7)

    LastPose(T_map_cam, 1e-4 * np.eye(6), "map", "optical", NOW).save(tmp_path / "pose.json")
    np.testing.assert_allclose(LastPose.load(tmp_path / "pose.json").T_map_cam, T_map_cam, rtol=0, atol=1e-7)

    # map -> odom by TF, and back to the camera
    sent = TFMessage(transforms=[transform_message(map_to_odom(T_map_cam, T_odom_cam), "map", "odom", NOW)])
    (transform,) = deserialize_message(serialize_message(sent), TFMessage).transforms
    buffer = TransformBuffer()
    buffer.insert(NOW, "map", "odom", *translation_rotation(transform.transform), static=True)
    for stamp, T in ((NOW - S, T_odom_cam @ forward(0.1)), (NOW + S, T_odom_cam)):
        buffer.insert(stamp, "odom", "base", *position_quaternion(T @ invert(T_base_cam)))
    buffer.insert(0, "base", "optical", *position_quaternion(T_base_cam), static=True)
    np.testing.assert_allclose(buffer.lookup("map", "optical", NOW + S), T_map_cam, rtol=0, atol=1e-7)
    np.testing.assert_allclose(buffer.lookup("map", "optical", NOW), T_map_cam @ forward(0.05), rtol=0, atol=1e-7)

    # the covariance of another frame depends on the lever, not on the coordinates
    covariance, axes = np.diag([1, 2, 3, 4, 5, 6]) * 1e-4, np.kron(np.eye(2), UTM[:3, :3])
    near = covariance_of_frame(covariance, camera_pose([1.0, -2.0, 0.5], 0.3), T_base_cam)
    far = covariance_of_frame(axes @ covariance @ axes.T, T_map_cam, T_base_cam)
    np.testing.assert_allclose(far, axes @ near @ axes.T, rtol=0, atol=1e-12)


def test_an_initial_pose_in_utm_and_odometry_predict_the_pose_of_the_next_image():
    from keyframe_samples import UTM

    stated = camera_pose([1.0, -2.0, 0.5], 0.3)
    predictions = []
    for M in (np.eye(4), UTM):
        lookups = SimpleNamespace(
            **{name: lambda *_, **__: np.eye(4) for name in ("now_between", "between", "odometry")}
        )
        gate, axes = Gate(GateSettings(first_fixes=1), watch_stamps=False), np.kron(np.eye(2), M[:3, :3])
        initial_pose = InitialPoseInput(
            SimpleNamespace(get_logger=Silent), SimpleNamespace(subscription=lambda *_: None), lookups,
            SimpleNamespace(base="", map="map", odom="odom"), lambda reason: 0,
        )  # fmt: skip
        message = PoseWithCovarianceStamped()
        message.pose.pose = pose_message(M @ stated)
        message.pose.covariance = (axes @ np.diag([0.01] * 3 + [1e-4] * 3) @ axes.T).ravel().tolist()
        message.header.frame_id, message.header.stamp = "map", stamp_message(NOW)
        initial_pose._on_initialpose(message)
        moved = camera_pose([0.7, 0.1, 0.0], 0.1)
        first = Observation(NOW, camera_frame="optical", T_base_cam=np.eye(4), T_odom_cam=np.eye(4))
        initial_pose.apply(gate, first)
        predictions.append(gate.predict(Observation(NOW + S, T_base_cam=np.eye(4), T_odom_cam=moved)))
        assert not initial_pose.pending
    (near, covariance), (far, far_covariance) = predictions
    np.testing.assert_allclose(near, stated @ moved, atol=1e-9)
    np.testing.assert_allclose(far, UTM @ stated @ moved, rtol=0, atol=1e-7)
    np.testing.assert_allclose(far_covariance, axes @ covariance @ axes.T, rtol=0, atol=1e-10)
