# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The node as a child process, and a robot around it: camera, odometry, and a listener.

The world is a room of the gallery, so that the camera's true pose is known exactly.
"""

import array
import math
import signal
import subprocess
import sys
import threading
import time
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
import rclpy
from geometry_msgs.msg import PoseStamped, PoseWithCovarianceStamped
from nre_ros.msg import LocalizationStatus
from nre_ros.srv import LocalizeImage
from rcl_interfaces.srv import SetParameters
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from tf2_msgs.msg import TFMessage

from nre_ros.features import load_backbone
from nre_ros.gallery import CameraMount, Gallery, build_room, camera_pose
from nre_ros.geometry import Camera, pose_error
from nre_ros.keyframes.building.builder import KeyframeBuilder
from nre_ros.keyframes.global_descriptor import GLOBAL_DESCRIPTOR
from nre_ros.keyframes.storage.store import KeyframeStore
from nre_ros.node.conversions import stamp_message, stamp_nanoseconds, transform_message
from nre_ros.ros_environment import clean_environment

ROOT = Path(__file__).resolve().parents[1]
OPTICAL = "camera_color_optical_frame"
CAMERA = Camera(320, 240, 260.0, 260.0, 160.5, 118.5)
TIMEOUT = 60.0
"""Seconds; far beyond what anything here takes, on a machine that is busy with other things."""


class World:
    """A room, a map of a part of it, and views from poses that are not in the map.

    places: [4, 4] of the room in the map; several: the same room as often.
    """

    def __init__(self, folder: Path, places=(np.eye(4),)):
        self.gallery = Gallery(build_room(seed=0))
        self.map_file = folder / "room.db"
        backbone = load_backbone("xfeat")
        builder = KeyframeBuilder(backbone)
        features = backbone.name, backbone.weights_hash
        with KeyframeStore.create(self.map_file, *features, "room", retrieval=GLOBAL_DESCRIPTOR) as store:
            for i, y in enumerate((-0.8, -0.4, 0.0, 0.4, 0.8)):
                T = camera_pose([0.2, y, 1.2 + 0.1 * (i % 2)], -0.2 * y)
                view = self.gallery.render(CAMERA, T)
                for k, place in enumerate(places):
                    name = f"view{i}" if not k else f"view{i}, place {k}"
                    store.add(builder.build_rgbd(name, 0, view.image, view.depth, CAMERA, place @ T))

    @cached_property
    def T_map_cam(self) -> np.ndarray:
        """Where the camera of the images is."""
        return camera_pose([0.05, 0.15, 1.3], 0.08, -0.03)

    @cached_property
    def image(self) -> np.ndarray:
        return self.gallery.render(CAMERA, self.T_map_cam).image

    def image_at(self, T_map_cam) -> np.ndarray:
        return self.gallery.render(CAMERA, T_map_cam).image


class NodeProcess:
    """``python -m nre_ros.node.localize_node --ros-args ...``, its output in a file.

    One image is enough for a pose, unless a test sets ``first_fixes``.
    """

    def __init__(self, folder: Path, *ros_args: str, command=("-m", "nre_ros.node.localize_node"), **parameters):
        self.log = folder / f"node_{time.monotonic_ns()}.log"
        parameters = {"first_fixes": 1, **parameters}
        given = [word for name, value in parameters.items() for word in ("-p", f"{name}:={value}")]
        environment = clean_environment(ROS_LOG_DIR=str(folder / "ros_log"), OMP_NUM_THREADS="1")
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(
                [sys.executable, *command, "--ros-args", *given, *ros_args],
                cwd=ROOT,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    @property
    def output(self) -> str:
        return self.log.read_text()

    def wait_for(self, text: str, timeout: float = TIMEOUT) -> "NodeProcess":
        deadline = time.monotonic() + timeout
        while text not in self.output:
            assert self.process.poll() is None, f"the node ended with {self.process.returncode}:\n{self.output}"
            assert time.monotonic() < deadline, f"{text!r} never came:\n{self.output}"
            time.sleep(0.02)
        return self

    def wait_ready(self) -> "NodeProcess":
        return self.wait_for("localizing in")

    def stop(self, number=signal.SIGINT, timeout: float = TIMEOUT) -> int:
        """Sends the signal; the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(timeout)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


class Robot:
    """Publishes images and odometry of a robot and keeps the node's messages, in a namespace of its own."""

    def __init__(self, namespace: str = "", image: str = "image", camera_info: str = "camera_info"):
        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        self.node = rclpy.create_node("robot", namespace=namespace, context=self.context)
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        publisher = self.node.create_publisher
        self._publishers = {
            Image: publisher(Image, image, 5),
            CompressedImage: publisher(CompressedImage, f"{image}/compressed", 5),
            CameraInfo: publisher(CameraInfo, camera_info, 5),
        }
        self._tf, self._tf_static = publisher(TFMessage, "/tf", 50), publisher(TFMessage, "/tf_static", latched)
        self.statuses, self.poses, self.covariances, self.transforms = [], [], [], []
        subscription = self.node.create_subscription
        subscription(LocalizationStatus, "status", self._append_to(self.statuses), 100)
        subscription(PoseStamped, "pose", self._append_to(self.poses), 100)
        subscription(PoseWithCovarianceStamped, "pose_with_covariance", self._append_to(self.covariances), 100)
        subscription(TFMessage, "/tf", self._on_tf, 100)
        self.changed = threading.Condition()
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def _spin(self):
        try:
            self._executor.spin()
        except ExternalShutdownException:
            pass
        except rclpy_implementation.RCLError:  # between two turns the context was shut down
            if self.context.ok():
                raise

    def close(self):
        self.context.shutdown()
        self._thread.join(10)
        self._executor.shutdown()
        self.node.destroy_node()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    # --- what is received -----------------------------------------------------------------------

    def _append_to(self, messages: list):
        def append(message):
            with self.changed:
                messages.append(message)
                self.changed.notify_all()

        return append

    def _on_tf(self, message):
        """Keeps what the node broadcasts, with the time of arrival; our own odometry is not news."""
        now = self.now()
        with self.changed:
            self.transforms += [(now, t) for t in message.transforms if t.header.frame_id not in ("odom", "base_link")]
            self.changed.notify_all()

    def wait(self, condition, timeout: float = TIMEOUT):
        """Waits for ``condition()`` to be true and returns its value; None after the time-out."""
        with self.changed:
            return self.changed.wait_for(condition, timeout) or None

    def now(self) -> int:
        return self.node.get_clock().now().nanoseconds

    # --- what is published ----------------------------------------------------------------------

    def listeners(self, *message_types) -> frozenset:
        """Who subscribes to these messages of ours, or to any; one killed stays for DDS's lease (20 s)."""
        topics = [self._publishers[kind].topic_name for kind in message_types or self._publishers]
        endpoints = [e for topic in topics for e in self.node.get_subscriptions_info_by_topic(topic)]
        return frozenset(tuple(endpoint.endpoint_gid) for endpoint in endpoints)

    def wait_connected(self, besides: frozenset = frozenset()):
        """Until the node hears the camera and we hear the node; ``besides`` are listeners known to be dead."""
        deadline = time.monotonic() + TIMEOUT
        while time.monotonic() < deadline:
            images, jpegs, infos = (self.listeners(kind) - besides for kind in self._publishers)
            spoken = [self.node.count_publishers(self.node.resolve_topic_name(name)) for name in ("pose", "status")]
            if images | jpegs and infos and all(spoken):
                time.sleep(0.3)  # the other side learns of it a little later
                return self
            time.sleep(0.02)
        raise AssertionError("the node's topics never appeared")

    def publish(self, message):
        self._publishers[type(message)].publish(message)

    def publish_once(self, message, topic: str):
        """Publishes once, reliably, when the node listens."""
        publisher = self.node.create_publisher(type(message), topic, 10)
        deadline = time.monotonic() + TIMEOUT
        while not publisher.get_subscription_count():
            assert time.monotonic() < deadline, f"nobody listens to {topic}"
            time.sleep(0.02)
        publisher.publish(message)
        time.sleep(0.3)

    def publish_transform(self, T, parent: str, child: str, stamp: int, static: bool = False):
        self.publish_on_tf(transform_message(T, parent, child, stamp), static)

    def publish_on_tf(self, message, static: bool = False):
        (self._tf_static if static else self._tf).publish(TFMessage(transforms=[message]))

    def publish_odometry(self, T_odom_base, stamp: int, mount: CameraMount = CameraMount()):
        """odom -> base_link shortly before and after the stamp, standing, and the static camera mount."""
        for offset in (-20_000_000, 0, 20_000_000):
            self.publish_transform(T_odom_base, "odom", "base_link", stamp + offset)
        self.publish_transform(mount.T_base_cam, "base_link", OPTICAL, stamp, static=True)

    def ask(self, message, info="good", timeout: float = TIMEOUT):
        """Publishes intrinsics and image until the status of that image comes, and returns it.

        Once is not enough: images are best effort, and the first ones fall into discovery.  So may the
        intrinsics, which have to be there before the image.
        """
        stamp, deadline = stamp_nanoseconds(message.header.stamp), time.monotonic() + timeout
        heard = len(self.statuses)

        def answers():
            return [s for s in self.statuses[heard:] if stamp_nanoseconds(s.header.stamp) == stamp]

        if info is not None:
            self.wait(self._publishers[CameraInfo].get_subscription_count, 5.0)
            for _ in range(3):
                self.publish(camera_info() if info == "good" else info)
                time.sleep(0.1)  # another topic: it may overtake or be overtaken
        while time.monotonic() < deadline:
            self.publish(message)
            if self.wait(answers, 3.0):
                return answers()[0]
        raise AssertionError("the node never answered this image")

    def call(self, service, name: str, request):
        """The answer of one of the node's services."""
        client = self.node.create_client(service, f"localize_node/{name}")
        assert client.wait_for_service(TIMEOUT)
        return self.answer(client.call_async(request))

    def answer(self, future):
        """The result of a call that is under way."""
        deadline = time.monotonic() + TIMEOUT
        while not future.done() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert future.done(), "the service never answered"
        return future.result()

    def localize_image(self, image, info):
        """The answer of the service ``localize_image``."""
        return self.call(LocalizeImage, "localize_image", LocalizeImage.Request(image=image, camera_info=info)).status

    def set_parameter(self, name: str, value):
        """Whether the node has taken the value, and why not."""
        request = SetParameters.Request(parameters=[Parameter(name, value=value).to_parameter_msg()])
        return self.call(SetParameters, "set_parameters", request).results[0]


class SimClock:
    """/clock from ``start`` nanoseconds on, as fast as the real one; ``set`` makes it jump."""

    def __init__(self, robot: Robot, start: int):
        self._publisher = robot.node.create_publisher(Clock, "/clock", 1)
        self.set(start)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def set(self, nanoseconds: int):
        self._offset = nanoseconds - time.monotonic_ns()

    def now(self) -> int:
        return time.monotonic_ns() + self._offset

    def _run(self):
        while not self._ended.wait(0.01):
            self._publisher.publish(Clock(clock=stamp_message(self.now())))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._ended.set()
        self._thread.join()


def assert_pose(T, expected):
    """Poses that are alike: the truth is exact, the limits leave room for the estimator alone."""
    metres, radians = pose_error(T, expected)
    assert metres < 0.03 and math.degrees(radians) < 1, f"{metres:.3f} m, {math.degrees(radians):.2f} degrees off"


def camera_info(**changes) -> CameraInfo:
    info = CameraInfo(
        width=CAMERA.width, height=CAMERA.height, distortion_model="plumb_bob", d=[0.0] * 5, k=CAMERA.K.ravel().tolist()
    )
    info.header.frame_id = OPTICAL
    for name, value in changes.items():
        setattr(info, name, value)
    return info


def raw_image(pixels, stamp: int, encoding: str = "bgr8", padding: int = 0) -> Image:
    """An Image whose rows are followed by ``padding`` bytes of noise."""
    height, width = pixels.shape[:2]
    rows = np.hstack([pixels.reshape(height, -1), np.full((height, padding), 171, np.uint8)])
    message = Image(
        height=height, width=width, encoding=encoding, step=rows.shape[1], data=array.array("B", rows.tobytes())
    )
    return _stamped(message, stamp)


def jpeg_image(pixels, stamp: int) -> CompressedImage:
    data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
    return _stamped(CompressedImage(format="bgr8; jpeg compressed bgr8", data=array.array("B", data)), stamp)


def _stamped(message, stamp: int):
    message.header.stamp, message.header.frame_id = stamp_message(stamp), OPTICAL
    return message
