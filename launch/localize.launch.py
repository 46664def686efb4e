"""Starts the localization node:  ros2 launch nre_ros localize.launch.py map:=/path/to/map.db

``ros2 launch nre_ros localize.launch.py --show-args`` lists the arguments.
"""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare


def generate_launch_description():
    default_parameters = PathJoinSubstitution([FindPackageShare("nre_ros"), "config", "localize.yaml"])
    arguments = [
        DeclareLaunchArgument("map", description="Map file to localize in (made by `nre_ros map build`)"),
        DeclareLaunchArgument(
            "image",
            default_value="/camera/color/image_raw",
            description="Topic of the images (sensor_msgs/Image); their JPEGs are taken from <image>/compressed",
        ),
        DeclareLaunchArgument(
            "camera_info",
            default_value="/camera/color/camera_info",
            description="Topic of the camera's intrinsics (sensor_msgs/CameraInfo)",
        ),
        DeclareLaunchArgument(
            "params_file", default_value=default_parameters, description="YAML file with the node's other parameters"
        ),
        DeclareLaunchArgument("namespace", default_value="", description="Namespace of the node and its topics"),
        DeclareLaunchArgument("name", default_value="localize_node", description="Name of the node"),
        DeclareLaunchArgument(
            "use_sim_time",
            default_value="false",
            description="Take the time from /clock (simulation, bag with --clock)",
        ),
        DeclareLaunchArgument(
            "log_level", default_value="info", description="Severity to log from: debug, info, warn, error, fatal"
        ),
    ]
    image, name = LaunchConfiguration("image"), LaunchConfiguration("name")
    node = Node(
        package="nre_ros",
        executable="localize_node",
        name=name,
        namespace=LaunchConfiguration("namespace"),
        output="screen",
        # the arguments come last: they win over the file
        parameters=[
            LaunchConfiguration("params_file"),
            {
                # a map called 1.db or "true" stays text
                "map_file": ParameterValue(LaunchConfiguration("map"), value_type=str),
                "use_sim_time": ParameterValue(LaunchConfiguration("use_sim_time"), value_type=bool),
            },
        ],
        remappings=[
            ("image", image),
            ("image/compressed", [image, "/compressed"]),
            ("camera_info", LaunchConfiguration("camera_info")),
        ],
        arguments=["--ros-args", "--log-level", LaunchConfiguration("log_level")],
    )
    return LaunchDescription([*arguments, node])
