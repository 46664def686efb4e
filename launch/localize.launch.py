# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Starts the localization node:  ros2 launch nre_ros localize.launch.py map:=/path/to/map.db

``ros2 launch nre_ros localize.launch.py --show-args`` lists the arguments.
"""

from launch.actions import DeclareLaunchArgument
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

from launch import LaunchDescription

TOPICS_IN_VIEW = (
    "/pose_with_covariance",
    "/path",
    "/markers/map",
    "/markers/fix",
    "/map_points",
    "/fix_points",
    "/debug_image",
    "/initialpose",
)
"""The topics in config/localize.rviz, which RViz has to find in the node's namespace."""


def generate_launch_description():
    share = FindPackageShare("nre_ros")
    arguments = [
        DeclareLaunchArgument("map", description="Map file to localize in (made by `nre_ros map build`)"),
        DeclareLaunchArgument(
            "image",
            default_value="/camera/color/image_raw",
            description="Topic of the images (sensor_msgs/Image); compressed images come from <image>/compressed",
        ),
        DeclareLaunchArgument(
            "camera_info",
            default_value="/camera/color/camera_info",
            description="Topic of the camera's intrinsics (sensor_msgs/CameraInfo)",
        ),
        DeclareLaunchArgument(
            "params_file",
            default_value=PathJoinSubstitution([share, "config", "localize.yaml"]),
            description="YAML file with the node's other parameters",
        ),
        DeclareLaunchArgument("namespace", default_value="", description="Namespace of the node and its topics"),
        DeclareLaunchArgument("name", default_value="localize_node", description="Name of the node"),
        DeclareLaunchArgument(
            "use_sim_time",
            default_value="false",
            description="Use the time of /clock (simulation, bag with --clock)",
        ),
        DeclareLaunchArgument(
            "log_level",
            default_value="info",
            description="Lowest severity that is logged: debug, info, warn, error, fatal",
        ),
        DeclareLaunchArgument(
            "autostart",
            default_value="true",
            description="Configure and activate the node when it starts; false: a lifecycle manager does it",
        ),
        DeclareLaunchArgument(
            "rviz", default_value="false", description="Also start RViz with the package's configuration"
        ),
    ]
    image, namespace = LaunchConfiguration("image"), LaunchConfiguration("namespace")
    use_sim_time = ParameterValue(LaunchConfiguration("use_sim_time"), value_type=bool)
    node = Node(
        package="nre_ros",
        executable="localize_node",
        name=LaunchConfiguration("name"),
        namespace=namespace,
        output="screen",
        # the arguments come last, so that they override the file
        parameters=[
            LaunchConfiguration("params_file"),
            {
                # a map with the name 1.db or "true" stays text
                "map_file": ParameterValue(LaunchConfiguration("map"), value_type=str),
                "use_sim_time": use_sim_time,
                "autostart": ParameterValue(LaunchConfiguration("autostart"), value_type=bool),
            },
        ],
        remappings=[
            ("image", image),
            ("image/compressed", [image, "/compressed"]),
            ("camera_info", LaunchConfiguration("camera_info")),
        ],
        arguments=["--ros-args", "--log-level", LaunchConfiguration("log_level")],
    )
    rviz = Node(
        package="rviz2",
        executable="rviz2",
        name="rviz",
        namespace=namespace,
        arguments=["-d", PathJoinSubstitution([share, "config", "localize.rviz"])],
        parameters=[{"use_sim_time": use_sim_time}],
        # a relative name is in RViz's namespace, which is the node's
        remappings=[(topic, topic[1:]) for topic in TOPICS_IN_VIEW],
        condition=IfCondition(LaunchConfiguration("rviz")),
    )
    return LaunchDescription([*arguments, node, rviz])
