# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Starts the localization node:  ros2 launch nre_ros localize.launch.py map:=/path/to/map.db

``ros2 launch nre_ros localize.launch.py --show-args`` lists the arguments.  An argument that is not given changes
nothing: the parameter file, a parent launch file (SetParameter) and the node's defaults count.
"""

from pathlib import Path

from launch.actions import DeclareLaunchArgument, OpaqueFunction, Shutdown
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import ExecutableInPackage, FindPackageShare

from launch import LaunchDescription
from nre_ros.node.parameter_file import parameters_for

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

ARGUMENTS = (
    ("map", "", "Map file to localize in, made by `nre_ros map build` (the parameter map_file)"),
    (
        "image",
        "/camera/color/image_raw",
        "Topic of the images (sensor_msgs/Image); compressed images come from <image>/compressed",
    ),
    ("camera_info", "/camera/color/camera_info", "Topic of the camera's intrinsics (sensor_msgs/CameraInfo)"),
    ("params_file", "", "YAML file with the node's parameters, under the key /**; config/localize.yaml shows all"),
    ("namespace", "", "Namespace of the node and its topics"),
    ("name", "localize_node", "Name of the node"),
    ("use_sim_time", "", "true: use the time of /clock (simulation, bag with --clock)"),
    ("log_level", "", "Lowest severity that the node logs: debug, info, warn, error, fatal"),
    ("autostart", "", "false: do not configure and activate the node, a lifecycle manager does it"),
    ("rviz", "false", "true: also start RViz with the package's configuration"),
    ("required", "false", "true: end the whole launch when the node ends"),
)
"""Name, default and description of each argument; an empty default leaves the setting alone."""


def generate_launch_description():
    arguments = [
        DeclareLaunchArgument(name, default_value=default, description=text) for name, default, text in ARGUMENTS
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=_processes)])


def _processes(context):
    """The processes to start.  All checks come first: launch leaves behind what runs when a later action fails."""
    given = {name: LaunchConfiguration(name).perform(context).strip() for name, _, _ in ARGUMENTS}
    name, namespace = given["name"], given["namespace"]
    with_rviz, required = _boolean("rviz", given["rviz"]), _boolean("required", given["required"])
    parameters = {}
    if given["map"]:
        # a map with the name 1.db or "true" stays text
        parameters["map_file"] = ParameterValue(given["map"], value_type=str)
    for switch in ("use_sim_time", "autostart"):
        if given[switch]:
            parameters[switch] = _boolean(switch, given[switch])
    files, use_sim_time = [], parameters.get("use_sim_time")
    full_name = _full_name(context, namespace, name)
    if given["params_file"]:
        files = [str(Path(given["params_file"]).expanduser())]
        from_file = parameters_for(files[0], full_name)
        if use_sim_time is None:
            use_sim_time = from_file.get("use_sim_time")
    ExecutableInPackage("localize_node", "nre_ros").perform(context)
    if with_rviz:
        _require_rviz(context)

    remappings = []
    if given["image"]:
        remappings += [("image", given["image"]), ("image/compressed", f"{given['image']}/compressed")]
    if given["camera_info"]:
        remappings += [("camera_info", given["camera_info"])]
    # of the node alone: at the level debug the middleware logs thousands of lines
    level = ["--ros-args", "--log-level", f"{full_name.strip('/').replace('/', '.')}:={given['log_level']}"]
    node = Node(
        package="nre_ros",
        executable="localize_node",
        name=name,
        namespace=namespace or None,
        output="screen",
        parameters=[*files, *([parameters] if parameters else [])],
        remappings=remappings,
        arguments=level if given["log_level"] else [],
        on_exit=[Shutdown(reason="localize_node has ended")] if required else None,
    )
    if not with_rviz:
        return [node]
    share = Path(FindPackageShare("nre_ros").perform(context))
    rviz = Node(
        package="rviz2",
        executable="rviz2",
        name="rviz",
        namespace=namespace or None,
        arguments=["-d", str(share / "config/localize.rviz")],
        parameters=[] if use_sim_time is None else [{"use_sim_time": use_sim_time}],
        # a relative name is in RViz's namespace, which is the node's
        remappings=[(topic, topic[1:]) for topic in TOPICS_IN_VIEW],
    )
    return [node, rviz]


def _boolean(name, text):
    values = {"true": True, "1": True, "false": False, "0": False}
    if text.lower() not in values:
        raise ValueError(f"launch argument {name} is {text!r}, expected true or false")
    return values[text.lower()]


def _full_name(context, namespace, name):
    """The node's name with its namespace, which is below that of a parent launch file (PushRosNamespace)."""
    outer = context.launch_configurations.get("ros_namespace", "")
    parts = [namespace] if namespace.startswith("/") else [outer, namespace]
    return "/" + "/".join(part.strip("/") for part in (*parts, name) if part.strip("/"))


def _require_rviz(context):
    try:
        ExecutableInPackage("rviz2", "rviz2").perform(context)
    except Exception as error:  # of ament_index_python or launch, by version
        raise RuntimeError(
            "rviz:=true, but rviz2 is not installed: apt install ros-$ROS_DISTRO-rviz2, or rviz:=false"
        ) from error
