# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""docs/parameters.md is made from the declarations, and says of each what it is."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

pytest.importorskip("rclpy", reason="needs ROS 2: a ROS installation or requirements/ros.txt")

from nre_ros.node.parameters import DECLARATIONS

ROOT = Path(__file__).resolve().parents[1]


def test_the_document_is_what_the_command_prints(ros_environment):
    command = [sys.executable, "-m", "nre_ros", "node", "--parameters"]
    run = subprocess.run(
        command, env=ros_environment, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True
    )
    document = (ROOT / "docs/parameters.md").read_text()
    assert run.stdout == document, "run: nre_ros node --parameters > docs/parameters.md"


def test_every_parameter_has_one_row_with_its_default():
    rows = re.findall(r"^\| `(\w+)`( \*)? \| (.*?) \|", (ROOT / "docs/parameters.md").read_text(), re.MULTILINE)
    assert [name for name, _, _ in rows] == [declaration.name for declaration in DECLARATIONS]
    for (_, star, default), declaration in zip(rows, DECLARATIONS):
        assert bool(star) == declaration.runtime
        value = yaml.safe_load(default.replace("`", ""))
        assert value == declaration.default and type(value) is type(declaration.default), declaration.name


def test_the_strict_parameters_are_those_of_the_recipe_and_stricter_than_the_defaults():
    strict = (ROOT / "config/strict.yaml").read_text()
    assert strict[strict.index("/**:") :] in (ROOT / "docs/gate.md").read_text()
    parameters = yaml.safe_load(strict)["/**"]["ros__parameters"]
    declared = {declaration.name: declaration for declaration in DECLARATIONS}
    for name, value in parameters.items():
        assert declared[name].converted(value) == value and not declared[name].fault(value), name
    assert parameters["min_alternative_confidence"] >= parameters["min_confidence"] > declared["min_confidence"].default
    assert parameters["single_confidence"] == 0.0 and parameters["odom_frame"] and not parameters["last_pose_file"]
    for name in ("first_fixes", "first_seconds", "jump_fixes", "jump_seconds"):
        assert parameters[name] > declared[name].default
    for name in ("max_alternative_share", "max_position_stddev"):
        assert parameters[name] < declared[name].default


def test_the_parameters_that_the_slam_document_gives_exist():
    declared = {declaration.name: declaration for declaration in DECLARATIONS}
    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/slam.md").read_text(), re.DOTALL)
    given = [nodes["/**"]["ros__parameters"] for nodes in map(yaml.safe_load, blocks) if "/**" in nodes]
    assert len(given) == 3
    for name, value in (item for parameters in given for item in parameters.items()):
        assert type(value) is type(declared[name].default) and not declared[name].fault(value), name
