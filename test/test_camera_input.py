# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The subscriptions of a camera against real publishers: latched intrinsics, QoS that does not fit, two transports."""

import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: a ROS installation or requirements/ros.txt")
pytest.importorskip("nre_ros.msg", reason="needs the generated messages: make setup or colcon")

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from ros_process import camera_info, jpeg_image, raw_image
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from nre_ros.node.camera_input import CameraInput
from nre_ros.node.image_drops import DropCounter
from nre_ros.node.interfaces import RosInterfaces

GREY = np.full((6, 8, 3), 128, np.uint8)
STAMP = 1_700_000_000 * 10**9
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
BEST_EFFORT = QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT)
RELIABLE = QoSProfile(depth=10)


@pytest.fixture
def robot():
    """robot.driver: a node that publishes; robot.listen(parameters...): a CameraInput in another node, spinning."""
    context = rclpy.Context()
    rclpy.init(context=context)
    namespace = f"/inputs_{time.monotonic_ns()}"
    executor, ended, nodes = SingleThreadedExecutor(context=context), threading.Event(), []

    def node(name, **options):
        made = rclpy.create_node(name, namespace=namespace, context=context, **options)
        nodes.append(made)
        executor.add_node(made)
        return made

    robot = SimpleNamespace(driver=node("driver"), images=[], warnings=[])

    def listen(**overrides):
        given = [rclpy.Parameter(f"qos_overrides.{namespace}/{name}", value=value) for name, value in overrides.items()]
        robot.listener = node("listener", parameter_overrides=given)
        logger = SimpleNamespace(info=lambda text: None, warning=robot.warnings.append)
        robot.listener.get_logger = lambda: logger
        robot.listener.declare_parameters(
            "", [("image_transport", "auto"), ("depth_transport", "none"), ("max_rate", 0.0)]
        )
        robot.interfaces = RosInterfaces(robot.listener)
        robot.input = CameraInput(
            robot.listener, robot.interfaces, "", DropCounter(), lambda source, image: robot.images.append(image)
        )
        return robot.input

    def until(condition, act=lambda: None):
        deadline = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < deadline, "it never came"
            act()
            time.sleep(0.02)

    def spin():
        while not ended.is_set():
            executor.spin_once(timeout_sec=0.05)

    robot.listen, robot.until = listen, until
    thread = threading.Thread(target=spin)
    thread.start()
    yield robot
    ended.set()
    thread.join()
    for each in nodes:
        each.destroy_node()
    context.shutdown()


def test_camera_info_that_was_sent_once_and_latched_is_received(robot):
    robot.driver.create_publisher(CameraInfo, "camera_info", LATCHED).publish(camera_info())
    source = robot.listen()
    robot.until(lambda: source.camera_info_at(STAMP) is not None)
    assert source.camera_info_at(STAMP) == camera_info() and robot.warnings == []


@pytest.mark.parametrize("qos", [BEST_EFFORT, RELIABLE], ids=["best effort", "reliable"])
def test_camera_info_that_is_not_latched_is_received_without_a_warning(robot, qos):
    source, publisher = robot.listen(), robot.driver.create_publisher(CameraInfo, "camera_info", qos)
    robot.until(lambda: source.camera_info_at(STAMP), lambda: publisher.publish(camera_info()))
    assert robot.warnings == []
    assert publisher.get_subscription_count() == 1, (
        "the driver would warn of another one that asks for latched messages"
    )


def test_a_qos_that_does_not_fit_is_named_with_its_topic_and_the_cure(robot):
    source = robot.listen(**{"camera_info.subscription.reliability": "reliable"})
    topic = robot.driver.resolve_topic_name("camera_info")
    publisher = robot.driver.create_publisher(CameraInfo, "camera_info", BEST_EFFORT)
    robot.until(lambda: robot.warnings, lambda: publisher.publish(camera_info()))
    reason = (
        "a publisher's QoS does not fit ours in reliability, none of its messages arrives; set "
        f"qos_overrides.{topic}.subscription.reliability as the publisher has it"
    )
    assert robot.warnings == [f"{topic}: {reason}"]
    assert source.camera_info_at(STAMP) is None and f"{topic} yet: {reason}" in source.silent_topics()


def test_a_topic_with_a_publisher_that_sends_nothing_is_told_from_one_without(robot):
    source = robot.listen()
    robot.driver.create_publisher(Image, "image", BEST_EFFORT)
    robot.until(lambda: "1 publisher(s) of sensor_msgs/msg/Image that send nothing" in source.silent_topics()[0])
    assert source.silent_topics()[1].endswith("/camera_info yet: nobody publishes it")


def test_beside_a_stream_of_compressed_images_the_raw_ones_are_not_asked_for(robot):
    """A driver encodes and sends what somebody subscribes to; images without a status are not even deserialized."""
    robot.listen()
    raw = robot.driver.create_publisher(Image, "image", BEST_EFFORT)
    jpeg = robot.driver.create_publisher(CompressedImage, "image/compressed", BEST_EFFORT)
    robot.until(lambda: raw.get_subscription_count() == 1 == jpeg.get_subscription_count())
    sent = []

    def send():
        sent.append(STAMP + len(sent) * 10**8)
        jpeg.publish(jpeg_image(GREY, sent[-1]))

    robot.until(lambda: raw.get_subscription_count() == 0, send)
    assert jpeg.get_subscription_count() == 1
    assert {image.stamp for image in robot.images} <= set(sent)
    assert isinstance(robot.images[0].message(), CompressedImage)
    # the compressed images end: both are asked for again
    robot.until(lambda: raw.get_subscription_count() == 1)
    robot.until(lambda: robot.images[-1].message_type is Image, lambda: raw.publish(raw_image(GREY, STAMP + 10**11)))
