# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""A pose that has been forgotten leaves the node no more, at whatever moment of an image's way that happens."""

import json
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
from rclpy.executors import ExternalShutdownException
from ros_process import CAMERA, camera_info, raw_image

from nre_ros.gate.decision import Decision, State
from nre_ros.gate.gate import Gate
from nre_ros.gate.observation import Observation
from nre_ros.gate.settings import GateSettings
from nre_ros.localization.result import LocalizationResult
from nre_ros.messages.transform_buffer import ConnectivityError, ExtrapolationError
from nre_ros.node import engine as engines
from nre_ros.node import localize_node
from nre_ros.node.clock_monitor import ClockMonitor
from nre_ros.node.conversions import stamp_message
from nre_ros.node.engine import DeviceError, Engine
from nre_ros.node.image_drops import DropCounter
from nre_ros.node.initial_pose import InitialPose, InitialPoseInput, LastPoseFile
from nre_ros.node.logs import ThrottledLogger
from nre_ros.node.odometry_propagation import OdometryPropagation
from nre_ros.node.parameters import DECLARATIONS
from nre_ros.node.pipeline import ImagePipeline
from nre_ros.node.publishers import set_decision, status_of_result
from nre_ros.node.tf import FrameLookups, Frames, TransformError

S = 10**9
NOW = 1_700_000_000 * S
COVARIANCE = 1e-4 * np.eye(6)
FRAMES = Frames(map="map", odom="odom", base="", camera="", pose="")
GREY = np.full((CAMERA.height, CAMERA.width, 3), 128, np.uint8)


class Recorder:
    """Accepts all calls, keeps the names of those that were made, and returns None."""

    def __init__(self):
        self.calls = []

    def __getattr__(self, name):
        return lambda *arguments, **options: self.calls.append((name, arguments))

    def names(self):
        return [name for name, _ in self.calls]


class Node:
    """A node's parameters, clock and logger."""

    def __init__(self, **parameters):
        self.values = {declaration.name: declaration.default for declaration in DECLARATIONS} | parameters
        self.logger, self.context = Recorder(), SimpleNamespace(ok=lambda: True)

    def get_parameter(self, name):
        return SimpleNamespace(value=self.values[name])

    def get_logger(self):
        return self.logger

    def get_clock(self):
        now = SimpleNamespace(nanoseconds=NOW)
        handle = SimpleNamespace(unregister=lambda: None)
        return SimpleNamespace(now=lambda: now, create_jump_callback=lambda *_, **__: handle)


class Lookups:
    """TF that knows all; ``during`` is called while a transform is looked up for an accepted pose."""

    def __init__(self):
        self.during = lambda: None

    def extrinsics(self, *_):
        return np.eye(4)

    def odometry(self, *_, **__):
        return np.eye(4)

    def published_pose(self, T, covariance, *_, **__):
        self.during()
        return T, covariance

    def between(self, *_):
        return np.eye(4)

    now_between = between


class Setup:
    """A pipeline whose localizer always finds the same pose, with recorders around it."""

    def __init__(self):
        self.node, self.lookups = Node(first_fixes=1), Lookups()
        self.during_localization = lambda: None
        self.result = LocalizationResult(np.eye(4), COVARIANCE, 0.9)
        self.drops, self.gate = DropCounter(), Gate(GateSettings(first_fixes=1), watch_stamps=False)
        self.clock = ClockMonitor(self.node, ThrottledLogger(self.node.logger), lambda reason: self.forget(reason))
        interfaces = SimpleNamespace(subscription=lambda *_: None)
        self.initial_pose = InitialPoseInput(self.node, interfaces, self.lookups, FRAMES, self.forget)
        names = ("map_odom", "propagation", "last_pose", "publishers", "mode", "path", "diagnostics")
        self.recorders = {name: Recorder() for name in names}
        displays = SimpleNamespace(
            path=self.recorders.pop("path"), diagnostics=self.recorders.pop("diagnostics"), update=lambda *_: None
        )
        self.displays = displays
        engine = SimpleNamespace(localize=self.localize, store=None)
        self.pipeline = ImagePipeline(
            self.node, engine, self.gate, FRAMES, self.lookups, **self.recorders,
            worker=SimpleNamespace(discard_offers=lambda: []), clock=self.clock, drops=self.drops,
            initial_pose=self.initial_pose, displays=displays, optical_frames=SimpleNamespace(check=lambda frame: ""),
        )  # fmt: skip

    def forget(self, reason):
        return self.pipeline.forget(reason)

    def localize(self, *_):
        self.during_localization()
        if isinstance(self.result, Exception):
            raise self.result
        return self.result

    def image(self, stamp=NOW, epoch=0, info=None):
        """The status of an image that arrived in an epoch."""
        info = camera_info() if info is None else info
        observation = Observation(stamp, message=raw_image(GREY, stamp), arrival=time.monotonic(), epoch=epoch)
        depth = SimpleNamespace(at=lambda *_: None)
        self.pipeline.process(observation, SimpleNamespace(camera_info_at=lambda stamp: info, depth=depth))
        return self.recorders["publishers"].calls[-1][1][0]

    def left(self):
        """What has left because of poses."""
        recorders = self.recorders
        return {
            "pose": recorders["publishers"].names().count("publish_pose"),
            "transform": recorders["map_odom"].names().count("update"),
            "propagated": recorders["propagation"].names().count("start_from"),
            "file": recorders["last_pose"].names().count("update"),
            "path": self.displays.path.names().count("update"),
        }


@pytest.fixture
def setup():
    return Setup()


def test_an_accepted_pose_leaves_once_by_every_way(setup):
    assert setup.image().pose_valid
    assert set(setup.left().values()) == {1}


@pytest.mark.parametrize("moment", ["during_localization", "during_tf", "before"])
def test_a_pose_that_is_forgotten_meanwhile_leaves_by_no_way(setup, moment):
    def forget():
        setup.forget("~/clear was called")

    if moment == "before":
        forget()
    elif moment == "during_localization":
        setup.during_localization = forget
    else:
        setup.lookups.during = forget
    status = setup.image()
    assert not status.pose_valid and status.reason == "~/clear was called meanwhile" and not any(status.pose.covariance)
    assert status.state == State.UNLOCALIZED == setup.gate.state
    assert set(setup.left().values()) == {0}
    setup.lookups.during = setup.during_localization = lambda: None
    assert setup.image(epoch=1).pose_valid and set(setup.left().values()) == {1}


def test_the_state_of_an_image_without_a_pose_is_that_of_the_moment_when_its_status_leaves(setup, monkeypatch):
    assert setup.image().pose_valid
    setup.result = LocalizationResult(reason="nothing found")
    log_state = setup.pipeline._log_state

    def forget_after_the_decision(*arguments):
        log_state(*arguments)
        setup.forget("~/clear was called")

    monkeypatch.setattr(setup.pipeline, "_log_state", forget_after_the_decision)
    status = setup.image(NOW + S)
    assert status.state == State.UNLOCALIZED and status.reason == "nothing found"
    decision = setup.displays.diagnostics.calls[-1][1][1]
    assert decision.state == State.UNLOCALIZED


def test_nothing_can_be_forgotten_between_a_pose_and_its_status(setup):
    """Whoever calls ~/clear and gets the answer sees no older pose after it."""
    order = []
    record = setup.recorders["publishers"]

    class Publishers:
        def publish_pose(self, *arguments):
            threading.Thread(target=lambda: (setup.forget("cleared"), order.append("forgotten"))).start()
            time.sleep(0.1)
            order.append("pose")

        def publish_status(self, status):
            record.calls.append(("publish_status", (status,)))
            order.append("status")

    setup.pipeline._publishers = Publishers()
    assert setup.image().pose_valid
    deadline = time.monotonic() + 10
    while len(order) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert order == ["pose", "status", "forgotten"]


def test_after_the_end_nothing_leaves(setup):
    setup.during_localization = setup.pipeline.close
    status = setup.image()
    assert not status.pose_valid and "deactivated" in status.reason and set(setup.left().values()) == {0}


def test_an_image_of_the_time_before_does_not_make_those_of_the_next_round_old(setup):
    """A looped bag: the last image of a round is taken up while the first one of the next round arrives."""
    setup.clock.arrived(NOW)
    setup.clock.arrived(NOW - 60 * S)
    setup.image(NOW, epoch=0)
    assert setup.image(NOW - 60 * S, epoch=1).pose_valid
    assert setup.drops.totals() == {}


def test_the_newest_localized_stamp_is_forgotten_with_the_pose(setup):
    setup.clock.arrived(NOW)
    assert setup.clock.check(NOW) is None
    setup.forget("time went back")
    assert setup.clock.check(NOW - 60 * S) is None


# --- initial pose -------------------------------------------------------------------------------


def stated(frame, x=1.0):
    message = PoseWithCovarianceStamped()
    message.header.frame_id, message.header.stamp = frame, stamp_message(NOW)
    message.pose.pose.position.x, message.pose.pose.orientation.w = x, 1.0
    message.pose.covariance = (0.01 * np.eye(6)).ravel().tolist()
    return message


def test_an_initial_pose_that_is_refused_forgets_nothing(setup):
    def unknown(*_):
        raise ConnectivityError("no such frame")

    assert setup.image().pose_valid
    setup.lookups.now_between = unknown
    setup.initial_pose._on_initialpose(stated("nowhere"))
    assert not setup.initial_pose.pending and setup.pipeline._epoch == 0
    assert setup.gate.state == State.LOCALIZED and "forget" not in setup.recorders["map_odom"].names()
    ((_, (warning,)),) = [call for call in setup.node.logger.calls if "rejected" in str(call)]
    assert warning == "initialpose is rejected: no such frame"


def test_an_initial_pose_without_a_way_to_the_camera_forgets_nothing(setup):
    def unknown(target, source, *_):
        raise ConnectivityError(f"{target} and {source} are not connected")

    frames = Frames(map="map", odom="odom", base="base_link", camera="", pose="")
    setup.initial_pose._frames = frames
    setup.initial_pose.apply(setup.gate, Observation(NOW, camera_frame="camera"))
    setup.lookups.now_between = unknown
    setup.initial_pose._on_initialpose(stated("map"))
    assert not setup.initial_pose.pending and setup.pipeline._epoch == 0


@pytest.mark.parametrize("frame", ["map", "/map", ""])
def test_the_frame_of_an_initial_pose_may_have_a_slash(setup, frame):
    setup.lookups.now_between = lambda *_: pytest.fail("the map is no other frame")
    setup.initial_pose._on_initialpose(stated(frame))
    assert setup.initial_pose.pending and setup.pipeline._epoch == 1


def test_an_initial_pose_waits_for_an_image_that_arrives_after_it(setup):
    setup.initial_pose._on_initialpose(stated("map"))
    old, new = Observation(NOW, camera_frame="camera"), Observation(NOW, camera_frame="camera", epoch=1)
    setup.initial_pose.apply(setup.gate, old)
    assert setup.initial_pose.pending and setup.gate.predict(old) is None
    setup.initial_pose.apply(setup.gate, new)
    T, _ = setup.gate.predict(new)
    assert not setup.initial_pose.pending and T[0, 3] == 1.0


def test_a_look_up_that_does_not_wait_takes_the_newest_transform():
    class Transforms:
        def lookup(self, target, source, stamp, timeout):
            assert timeout == 0
            if source == "other":
                raise ConnectivityError("two trees")
            raise ExtrapolationError("not yet")

        def latest(self, target, source):
            return 2 * np.eye(4), 5

    lookups = FrameLookups(Node(), Transforms(), FRAMES)
    np.testing.assert_array_equal(lookups.now_between("map", "site", NOW, "no pose"), 2 * np.eye(4))
    with pytest.raises(TransformError, match="no pose: two trees"):
        lookups.now_between("map", "other", NOW, "no pose")


# --- odometry propagation and the last pose -----------------------------------------------------


def test_the_propagated_pose_ends_with_what_was_forgotten():
    """`forget` waits for a pose that is just leaving, and nothing leaves after it."""
    order, entered = [], threading.Event()

    def publish_pose(*_):
        entered.set()
        time.sleep(0.2)
        order.append("pose")

    timers = []
    node = Node(odometry_propagation=True)
    gate = SimpleNamespace(state=State.LOCALIZED, predict=lambda observation: (np.eye(4), COVARIANCE))
    transforms = SimpleNamespace(latest=lambda *_: (np.eye(4), NOW + 1))
    interfaces = SimpleNamespace(timer=lambda seconds, callback: timers.append(callback))
    publishers = SimpleNamespace(publish_pose=publish_pose)
    propagation = OdometryPropagation(node, interfaces, transforms, Lookups(), FRAMES, gate, publishers)
    propagation.start_from(Observation(NOW, camera_frame="camera"))
    thread = threading.Thread(target=timers[0])
    thread.start()
    assert entered.wait(10)
    propagation.forget()
    order.append("forgotten")
    thread.join(10)
    timers[0]()
    assert order == ["pose", "forgotten"]


def test_the_last_pose_is_written_without_waiting_for_the_disk(tmp_path, monkeypatch):
    disk = threading.Event()
    monkeypatch.setattr("nre_ros.gate.last_pose.os.fsync", lambda _: disk.wait(30))
    file = LastPoseFile(Node(last_pose_file=str(tmp_path / "pose.json")), FRAMES)
    for stamp in range(5):
        file.update(np.eye(4), COVARIANCE, "camera", NOW + stamp)  # would wait for ever
    assert not (tmp_path / "pose.json").exists()
    disk.set()
    file.close()
    assert json.loads((tmp_path / "pose.json").read_text())["stamp"] == NOW + 4


def test_a_last_pose_that_was_forgotten_is_not_written(tmp_path):
    path = tmp_path / "pose.json"
    file = LastPoseFile(Node(last_pose_file=str(path)), FRAMES)
    file.update(np.eye(4), COVARIANCE, "camera", NOW)
    deadline = time.monotonic() + 10
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    file.update(np.eye(4), COVARIANCE, "camera", NOW + 1)
    file.forget()
    file.close()
    assert json.loads(path.read_text())["stamp"] == NOW


@pytest.mark.parametrize("name", ["map", "/map"])
def test_the_frames_of_the_last_pose_may_have_a_slash(tmp_path, name):
    path = tmp_path / "pose.json"
    file = LastPoseFile(Node(last_pose_file=str(path)), Frames(name, "odom", "", "", ""))
    file.update(np.eye(4), COVARIANCE, "/camera", NOW)
    file.close()
    pose = LastPoseFile(Node(last_pose_file=str(path)), FRAMES).read()
    assert isinstance(pose, InitialPose) and pose.frame == "camera"


# --- the status ---------------------------------------------------------------------------------


def test_a_valid_pose_is_always_one_of_a_localized_image():
    """Also where odometry decided between two poses, neither of which the image alone could give."""
    ambiguous = LocalizationResult(reason="two places", confidence=0.45)
    accepted = Decision(True, State.LOCALIZED, "odometry", T_map_cam=np.eye(4), covariance=COVARIANCE, confidence=0.4)
    status = status_of_result(ambiguous, State.LOCALIZED)
    assert not status.image_localized
    set_decision(status, accepted, 4.0)
    assert status.pose_valid and status.image_localized and status.confidence == pytest.approx(0.4)


# --- intrinsics ---------------------------------------------------------------------------------


def with_focal_length(factor):
    info = camera_info()
    info.k[0], info.k[4] = factor * info.k[0], factor * info.k[4]
    return info


def test_unusual_intrinsics_are_reported_until_they_change_and_impossible_ones_are_refused(setup):
    def reported():
        calls = [arguments for name, arguments in setup.displays.diagnostics.calls if name == "warn"]
        return dict(calls)["intrinsics of the camera"]

    assert setup.image().pose_valid and reported() == ""
    assert setup.image(NOW + S // 10, info=with_focal_length(10)).pose_valid
    assert reported().startswith("focal length fx = 2600 of an image of 320x240 pixels")
    assert setup.image(NOW + S // 5).pose_valid and reported() == ""
    status = setup.image(NOW + S // 2, info=with_focal_length(1 / 260))
    assert not status.pose_valid and status.reason.startswith("impossible intrinsics: focal length fx = 1 of an image")
    assert setup.drops.totals() == {"invalid_image": 1}
    warnings = [str(arguments) for name, arguments in setup.node.logger.calls if name == "warning"]
    assert sum("intrinsics of the camera are unusual" in text for text in warnings) == 1


# --- the device ---------------------------------------------------------------------------------


def test_a_lost_device_is_an_error_of_the_diagnostics_and_no_traceback(setup):
    setup.result = DeviceError("the device cuda is lost, start the node again: CUDA error")
    for _ in range(3):
        status = setup.image()
        assert not status.pose_valid and status.reason == str(setup.result)
    assert setup.drops.totals() == {"lost_device": 3}
    observation = setup.displays.diagnostics.calls[-1][1][0]
    assert observation.device_fault == str(setup.result)
    errors = [arguments for name, arguments in setup.node.logger.calls if name == "error"]
    assert errors == [(str(setup.result),)], "one line, no traceback for each image"


@pytest.mark.parametrize("works", [False, True])
def test_an_error_of_the_gpu_is_that_of_a_lost_device_if_nothing_works_there_any_more(monkeypatch, works):
    def localize(*_, **__):
        raise RuntimeError("CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be ...")

    engine = Engine.__new__(Engine)
    engine._node, engine._logger, engine.limitation, engine._retry_at = Node(), Recorder(), "", 0.0
    engine.loss = ""
    engine._localizer = SimpleNamespace(localize=localize, device=torch.device("cuda"), store=[])
    engine._retrieve = 5
    monkeypatch.setattr(engines, "device_works", lambda device: works)
    with pytest.raises(RuntimeError if works else DeviceError) as error:
        engine.localize(GREY, CAMERA)
    assert engine.loss == ("" if works else str(error.value))
    assert works or str(error.value) == (
        "the device cuda is lost, start the node again: CUDA error: an illegal memory access was encountered"
    )


def test_the_node_goes_on_on_the_cpu_after_a_lost_device_where_a_parameter_says_so(monkeypatch):
    def localize(*_, **__):
        if localizer.device.type == "cuda":
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        return "a result"

    localizer = SimpleNamespace(localize=localize, device=torch.device("cuda"), store=[])
    localizer.move_to = lambda device: setattr(localizer, "device", torch.device(device))
    engine = Engine.__new__(Engine)
    engine._node, engine._logger, engine.limitation, engine._retry_at = Node(lost_device="cpu"), Recorder(), "", 0.0
    engine._localizer, engine._retrieve = localizer, 5
    monkeypatch.setattr(engines, "device_works", lambda device: device.type == "cpu")
    assert engine.localize(GREY, CAMERA) == "a result" and localizer.device.type == "cpu"
    assert engine.limitation.startswith("the device cuda is lost") and engine.limitation.endswith(": on cpu")
    assert [name for name, _ in engine._logger.calls] == ["error"]
    assert engine.localize(GREY, CAMERA) == "a result" and engine._retry_at == float("inf")  # not tried again


def test_a_process_that_ends_by_a_lost_device_does_so_with_one_line_and_an_exit_code_of_its_own():
    class Executor:
        def __init__(self):
            self.turns = 0

        def spin_once(self, timeout_sec):
            self.turns += 1
            if self.turns == 2:
                node.loss = "the device cuda is lost, start the node again: CUDA error"
            if self.turns == 5:
                raise ExternalShutdownException

    for choice, code, turns in (("exit", 3, 2), ("report", 0, 5)):
        node, executor = Node(lost_device=choice), Executor()
        node.loss = ""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(rclpy, "ok", lambda: True)
            assert localize_node._spin(executor, node) == code
        assert executor.turns == turns
        assert [name for name, _ in node.logger.calls] == ["fatal"] * (choice == "exit")


def test_an_image_adds_no_line_to_that_of_a_process_that_ends_by_a_lost_device(setup):
    setup.node.values["lost_device"] = "exit"
    setup.result = DeviceError("the device cuda is lost, start the node again: CUDA error")
    assert setup.image().reason == str(setup.result)
    assert "error" not in setup.node.logger.names() and setup.drops.totals() == {"lost_device": 1}


@pytest.mark.parametrize("works", [False, True])
def test_a_device_that_is_lost_while_the_node_is_inactive_is_reported_in_one_line(monkeypatch, works):
    def move_to(device):
        raise RuntimeError("CUDA error: unknown error\nCompile with ...")

    engine = Engine.__new__(Engine)
    engine._node, engine._localizer = Node(), SimpleNamespace(has_device=False, move_to=move_to)
    monkeypatch.setattr(engines, "choose_device", lambda name: torch.device("cuda"))
    monkeypatch.setattr(engines, "device_works", lambda device: works)
    with pytest.raises(RuntimeError if works else DeviceError, match="CUDA error: unknown error"):
        engine.acquire()


@pytest.mark.parametrize(
    "text",
    [
        "CUDA out of memory. Tried to allocate 2.00 GiB",
        "[enforce fail at alloc_cpu.cpp:114] err == 0. DefaultCPUAllocator: can't allocate memory",
        "DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes",
        "unable to mmap 4096 bytes from file </weights>: Cannot allocate memory (12)",
        "std::bad_alloc",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "cuDNN error: CUDNN_STATUS_NOT_INITIALIZED",
        "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
        "cusolver error: CUSOLVER_STATUS_ALLOC_FAILED",
        "Unable to find an engine to execute this computation",
        "GET was unable to find an engine to execute this computation",
    ],
)
def test_memory_that_runs_out_is_recognised_in_the_words_of_every_library(text):
    assert engines._is_out_of_memory(RuntimeError(text))
    assert not engines._is_out_of_memory(RuntimeError("CUDA error: device-side assert triggered"))
