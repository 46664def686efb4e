# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Plays a bag to the localization node:  ros2 launch nre_ros replay.launch.py map:=MAP.db bag:=BAG

The bag (rosbag2, sqlite3 or MCAP) starts when the node has subscribed, and publishes its own clock.  Everything ends
when the node or the player fails.  ``ros2 launch nre_ros replay.launch.py --show-args`` lists the arguments.
``nre_ros replay`` prints statistics instead of showing pictures.
"""

import sys
from pathlib import Path

from launch.actions import DeclareLaunchArgument, ExecuteProcess, IncludeLaunchDescription, OpaqueFunction, Shutdown
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.substitutions import FindPackageShare

from launch import LaunchDescription
from nre_ros.packages import BAGS, require

PASSED_ON = ("map", "params_file", "namespace", "log_level", "rviz")
DEFAULT_IMAGE, DEFAULT_CAMERA_INFO = "/camera/color/image_raw", "/camera/color/camera_info"


def generate_launch_description():
    arguments = [
        DeclareLaunchArgument("bag", description="Folder of the rosbag2 to play"),
        DeclareLaunchArgument(
            "map",
            default_value="",
            description="Map file to localize in, made by `nre_ros map build` (the parameter map_file)",
        ),
        DeclareLaunchArgument("rate", default_value="1.0", description="Speed, as a multiple of real time"),
        DeclareLaunchArgument(
            "image",
            default_value="",
            description=f"Topic of the bag's images; empty: {DEFAULT_IMAGE}, or the bag's only image topic",
        ),
        DeclareLaunchArgument(
            "camera_info",
            default_value="",
            description=f"Topic of the intrinsics in the bag; empty: {DEFAULT_CAMERA_INFO}, or the bag's only one",
        ),
        DeclareLaunchArgument(
            "params_file",
            default_value="",
            description="YAML file with the node's parameters, under the key /**; config/localize.yaml shows all",
        ),
        DeclareLaunchArgument("namespace", default_value="", description="Namespace of the node and its topics"),
        DeclareLaunchArgument(
            "log_level",
            default_value="",
            description="Lowest severity that the node logs: debug, info, warn, error, fatal",
        ),
        DeclareLaunchArgument(
            "rviz", default_value="true", description="false: do not start RViz with the package's configuration"
        ),
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=_processes)])


def _processes(context):
    """The processes to start, after the bag and its topics were checked."""
    given = {
        name: LaunchConfiguration(name).perform(context).strip() for name in ("bag", "rate", "image", "camera_info")
    }
    bag = str(Path(given["bag"]).expanduser())
    rate = _rate(given["rate"])
    image, camera_info = _topics(bag, given["image"], given["camera_info"])
    share = Path(FindPackageShare("nre_ros").perform(context))
    localize = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(share / "launch/localize.launch.py")),
        launch_arguments=[
            *((name, LaunchConfiguration(name)) for name in PASSED_ON),
            ("image", image.removesuffix("/compressed")),
            ("camera_info", camera_info),
            ("use_sim_time", "true"),
            ("required", "true"),
        ],
    )
    # not `ros2 bag play`, which starts at once, while the node still loads map and network
    words = [bag, "--rate", rate, "--image", image, "--wait-for", image, camera_info]
    player = ExecuteProcess(
        cmd=[sys.executable, "-m", "nre_ros.replay.player", *words], output="log", on_exit=_after_player
    )
    return [localize, player]


def _after_player(event, context):
    """The end of everything if the player has failed; after the bag, node and RViz stay to be looked at."""
    return [Shutdown(reason="the bag was not played")] if event.returncode else None


def _rate(text):
    try:
        if 0 < float(text) < float("inf"):
            return text
    except ValueError:
        pass
    raise ValueError(f"launch argument rate is {text!r}, expected a number above 0")


def _topics(bag, image, camera_info):
    """Topics of images and intrinsics; an error in one line if the bag is missing or lacks them."""
    require(*BAGS)
    from nre_ros.messages.bag import CAMERA_INFO_TYPE, IMAGE_TYPES, choose_topic, open_bag

    with open_bag(bag) as reader:
        found = {connection.topic: connection.msgtype for connection in reader.connections}
    images = [topic for topic, kind in found.items() if kind in IMAGE_TYPES]
    for wanted in (image, f"{image}/compressed") if image else (DEFAULT_IMAGE, f"{DEFAULT_IMAGE}/compressed"):
        if wanted in images:
            image = wanted
            break
    image = choose_topic(bag, found, IMAGE_TYPES, image, "image")
    if found[image] == IMAGE_TYPES[1] and not image.endswith("/compressed"):
        raise ValueError(f"bag {bag}: compressed images on {image}, whose name does not end in /compressed")
    if not camera_info and found.get(DEFAULT_CAMERA_INFO) == CAMERA_INFO_TYPE:
        camera_info = DEFAULT_CAMERA_INFO
    return image, choose_topic(bag, found, (CAMERA_INFO_TYPE,), camera_info, "camera_info")
