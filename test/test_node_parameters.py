# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""A parameter that was given is used, converted or refused, and never ignored, whatever its type and source."""

import math

import pytest
import yaml

pytest.importorskip("rclpy", reason="needs ROS 2: a ROS installation or requirements/ros.txt")

import rclpy
from rclpy.node import Node
from rclpy.parameter import Parameter

from nre_ros.node.parameter_sources import files_for_other_nodes, given_parameters
from nre_ros.node.parameters import DECLARATIONS, ParameterError, declare, value_of

DEFAULTS = {"/**": {"ros__parameters": {entry.name: entry.default for entry in DECLARATIONS}}}


class NodeWithLog(Node):
    """A node of the name localize_node whose warnings are kept."""

    def __init__(self, arguments):
        self.context_of_its_own = rclpy.Context()
        rclpy.init(args=["program", *arguments], context=self.context_of_its_own)
        super().__init__("localize_node", context=self.context_of_its_own)
        self.warnings = []
        declare(self, lambda: False, arguments)

    def get_logger(self):
        logger = super().get_logger()
        if hasattr(self, "warnings"):
            logger.warning = self.warnings.append
        return logger


@pytest.fixture
def node(tmp_path):
    """node(words, file content, ...): a node with such parameter files, then such words of the command line."""
    nodes = []

    def make(words="", *contents):
        arguments = ["--ros-args"]
        for content in contents:
            path = tmp_path / f"{len(arguments)}.yaml"
            path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
            arguments += ["--params-file", str(path)]
        for word in words.split():
            arguments += ["-p", word] if ":=" in word and word[0] != "-" else [word]
        nodes.append(NodeWithLog(arguments))
        return nodes[-1]

    yield make
    for each in nodes:
        each.destroy_node()
        each.context_of_its_own.shutdown()


@pytest.mark.parametrize("files", [(), (DEFAULTS,)], ids=["alone", "after a file with all defaults"])
@pytest.mark.parametrize(
    "word, name, value",
    [
        ("publish_tf:=0", "publish_tf", False),
        ("publish_tf:=false", "publish_tf", False),
        ("publish_tf:=off", "publish_tf", False),
        ("odometry_propagation:=1", "odometry_propagation", True),
        ("retrieve:=3.0", "retrieve", 3),
        ("retrieve:=3", "retrieve", 3),
        ("max_rate:=5", "max_rate", 5.0),
        ("transform_tolerance:=0", "transform_tolerance", 0.0),
        ("max_rate:=1e2", "max_rate", 100.0),
        ("cameras:=front", "cameras", ["front"]),
        ("cameras:=[front,rear]", "cameras", ["front", "rear"]),
        ("odom_frame:=''", "odom_frame", ""),
        ('map_file:="1"', "map_file", "1"),
        ("map_file:=2026-11-30", "map_file", "2026-11-30"),
        ("map_file:=1:30", "map_file", "1:30"),
        ("map_file:=~", "map_file", "~"),
        ("publish_tf:=n", "publish_tf", False),
        ("path_length:=0x10", "path_length", 16),
        ("max_rate:=08", "max_rate", 8.0),
    ],
)
def test_a_value_of_a_neighbouring_type_is_converted(node, word, name, value, files):
    made = node(word, *files)
    assert value_of(made, name) == value and type(value_of(made, name)) is type(value)
    assert made.warnings == []


@pytest.mark.parametrize("files", [(), (DEFAULTS,)], ids=["alone", "after a file with all defaults"])
@pytest.mark.parametrize(
    "word, reason",
    [
        ("publish_tf:=2", "publish_tf is 2, expected true or false"),
        ("publish_tf:=never", "publish_tf is 'never', expected true or false"),
        ("retrieve:=3.5", "retrieve is 3.5, expected a whole number"),
        ("retrieve:=true", "retrieve is True, expected a whole number"),
        ("max_rate:=fast", "max_rate is 'fast', expected a number"),
        ("max_rate:=true", "max_rate is True, expected a number"),
        ("max_rate:=.nan", "max_rate is nan, expected a finite number"),
        (f"max_rate:={'9' * 400}", "max_rate is inf, expected a finite number"),
        (f"seed:={'9' * 5000}", "seed is inf, expected a whole number"),
        ("map_file:=1", "map_file is 1, expected text, in the quotes of YAML"),
        ("odom_frame:=no", "odom_frame is False, expected text, in the quotes of YAML"),
        ("cameras:=[1,2]", "cameras is [1, 2], expected a list of text"),
        ("device:=tpu", "device is 'tpu', expected one of: auto, cpu, cuda"),
    ],
)
def test_a_value_of_another_type_is_refused_with_what_is_expected(node, word, reason, files):
    with pytest.raises(ParameterError) as error:
        node(word, *files)
    assert reason in str(error.value)


def test_the_last_value_counts_whatever_its_type_and_the_key_of_its_file(node):
    named = "localize_node:\n  ros__parameters:\n    retrieve: 7\n    publish_tf: 0\n"
    made = node("retrieve:=9", DEFAULTS, named)
    assert value_of(made, "retrieve") == 9 and value_of(made, "publish_tf") is False
    assert value_of(node("", DEFAULTS, named), "retrieve") == 7
    simulated = "/**:\n  ros__parameters:\n    use_sim_time: true\n"
    assert value_of(node("", simulated), "use_sim_time") is True
    assert value_of(node("use_sim_time:=0", simulated), "use_sim_time") is False


def test_words_of_a_file_are_what_rcl_takes_them_for(node):
    made = node(
        "",
        "/**:\n  ros__parameters:\n    base_frame: ''\n    publish_tf: Off\n    map_file: 'off'\n    mode: on_request\n",
    )
    assert value_of(made, "base_frame") == "" and value_of(made, "publish_tf") is False
    assert value_of(made, "map_file") == "off" and value_of(made, "mode") == "on_request"


def test_names_of_nodes_are_matched_as_rcl_does(tmp_path):
    file = tmp_path / "parameters.yaml"
    file.write_text(
        "/**:\n  ros__parameters: {a: 1}\n/*/localize_node:\n  ros__parameters: {b: 2}\n"
        "robot:\n  localize_node:\n    ros__parameters: {c: 3, deep: {er: 4}}\nlocalize_node:\n  ros__parameters: {d: 5}\n"
    )
    arguments = ["--ros-args", "--params-file", str(file), "-p", "other:a:=8", "--", "-p", "a:=9"]
    assert given_parameters(arguments, "/robot/localize_node") == {"a": 1, "b": 2, "c": 3, "deep.er": 4}
    assert given_parameters(arguments, "/localize_node") == {"a": 1, "d": 5}
    assert given_parameters([*arguments, "--ros-args", "-p", "localize_node:a:=6"], "/localize_node")["a"] == 6


def test_unknown_names_and_files_for_other_nodes_are_warned_about(node, tmp_path):
    made = node("retrieves:=3 qos_overrides./image.subscription.depth:=2 use_sim_time:=false colour:=red")
    assert made.warnings == [
        "parameter retrieves is unknown and ignored, did you mean retrieve?",
        "parameter colour is unknown and ignored (docs/parameters.md has all)",
    ]
    made = node("", "localiser:\n  ros__parameters: {retrieve: 7}\n")
    (warning,) = made.warnings
    assert "gives nothing to /localize_node, only to /localiser: begin it with /**:" in warning
    assert files_for_other_nodes(["--ros-args", "--params-file", str(tmp_path / "missing.yaml")], "/node") == {}


@pytest.mark.skipif(not hasattr(Node, "add_pre_set_parameters_callback"), reason="rclpy of Humble cannot convert")
def test_a_value_that_is_set_at_run_time_is_converted_or_refused(node):
    made = node()
    cases = {
        ("max_rate", 5): 5.0, ("publish_tf", 0): False, ("path_length", 20.0): 20,
        ("max_rate", "fast"): None, ("path_length", 2.5): None, ("max_rate", math.nan): None,
    }  # fmt: skip
    for (name, value), expected in cases.items():
        before = value_of(made, name)
        (result,) = made.set_parameters([Parameter(name, value=value)])
        assert result.successful == (expected is not None), (name, value, result.reason)
        assert result.successful or result.reason
        now = value_of(made, name)
        assert now == (before if expected is None else expected) and type(now) is type(before)
