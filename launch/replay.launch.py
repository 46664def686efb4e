# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Plays a bag to the localization node:  ros2 launch nre_ros replay.launch.py map:=MAP.db bag:=BAG rviz:=true

The bag (rosbag2, sqlite3 or MCAP) starts when the node has subscribed, and publishes its own clock.
``ros2 launch nre_ros replay.launch.py --show-args`` lists the arguments.  ``nre_ros replay`` prints statistics
instead of showing pictures.
"""

from launch.actions import DeclareLaunchArgument, ExecuteProcess, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import FindExecutable, LaunchConfiguration, PathJoinSubstitution
from launch_ros.substitutions import FindPackageShare

from launch import LaunchDescription

PASSED_ON = ("map", "image", "camera_info", "params_file", "namespace", "log_level", "rviz")


def generate_launch_description():
    share = FindPackageShare("nre_ros")
    arguments = [
        DeclareLaunchArgument("bag", description="Folder of the rosbag2 to play"),
        DeclareLaunchArgument("map", description="Map file to localize in (made by `nre_ros map build`)"),
        DeclareLaunchArgument("rate", default_value="1.0", description="Speed, as a multiple of real time"),
        DeclareLaunchArgument(
            "image",
            default_value="/camera/color/image_raw",
            description="Topic of the bag's images; of compressed images without /compressed",
        ),
        DeclareLaunchArgument(
            "camera_info",
            default_value="/camera/color/camera_info",
            description="Topic of the camera's intrinsics in the bag",
        ),
        DeclareLaunchArgument(
            "params_file",
            default_value=PathJoinSubstitution([share, "config", "localize.yaml"]),
            description="YAML file with the node's other parameters",
        ),
        DeclareLaunchArgument("namespace", default_value="", description="Namespace of the node and its topics"),
        DeclareLaunchArgument(
            "log_level",
            default_value="info",
            description="Lowest severity that is logged: debug, info, warn, error, fatal",
        ),
        DeclareLaunchArgument(
            "rviz", default_value="true", description="Also start RViz with the package's configuration"
        ),
    ]
    localize = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(PathJoinSubstitution([share, "launch", "localize.launch.py"])),
        launch_arguments=[*((name, LaunchConfiguration(name)) for name in PASSED_ON), ("use_sim_time", "true")],
    )
    image, camera_info = LaunchConfiguration("image"), LaunchConfiguration("camera_info")
    compressed = [image, "/compressed"]
    # not `ros2 bag play`, which starts at once, while the node still loads map and network
    player = ExecuteProcess(
        cmd=[
            FindExecutable(name="python3"),
            "-m",
            "nre_ros.replay.player",
            LaunchConfiguration("bag"),
            "--rate",
            LaunchConfiguration("rate"),
            "--image",
            image,
            "--wait-for",
            image,
            compressed,
            camera_info,
        ],
        output="log",
    )
    return LaunchDescription([*arguments, localize, player])
