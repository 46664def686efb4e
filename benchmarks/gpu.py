# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""All about one GPU in four minutes: operators checked against the CPU and timed, whole queries, throughput and memory.

    python benchmarks/run.py gpu --device cuda

Nothing is read but the package itself: the query is rendered. Without a GPU the same code runs on the CPU, a dry run.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from time import perf_counter
from typing import Any
from unittest.mock import patch

import counters
import numpy as np
import torch
from common import Options, Skip, Table

from nre_ros.features import FeatureMap, ImageFeatures, load_backbone
from nre_ros.nre import NREEstimator
from nre_ros.nre.operators import OPERATORS, Operator, reference_only

SECONDS = 200.0
"""What is timed ends after so long, with fewer repetitions."""
REPETITIONS = 100
POSE_LIMITS = (0.5, 0.02)
"""Millimetres and degrees that the poses of the GPU and of the CPU may differ by."""


def run(options: Options):
    """Yields the tables of operators and of whole queries."""
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise Skip("torch finds no GPU here")
    yield from measure(counters.rendered_query(), device, SECONDS, REPETITIONS)


def measure(query: counters.Query, device: torch.device, seconds: float, repetitions: int):
    """Yields the tables for one query.

    Args:
        query: On the CPU.
        device: What is measured.
        seconds: Time that may pass.
        repetitions: Of each operator and of the query.
    """
    ends = perf_counter() + seconds
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    calls, expected = _recorded(query)
    table = Table("Operators", ("operator", "largest difference from the CPU", "median [ms]", "99 % below [ms]"))
    for name, (arguments, results) in calls.items():
        moved = _moved(arguments, device)

        def call(operator: Operator[..., Any] = OPERATORS[name], moved: Any = moved) -> Any:
            with torch.inference_mode():
                return operator(*moved)

        difference = _difference(call(), results)
        table.rows.append(
            (name, difference, *_times(call, device, repetitions, min(ends, perf_counter() + seconds / 20)))
        )
    table.notes.append(f"Each with the inputs of a query, on {_name(device)}; the CPU's are the references in torch.")
    yield table

    backbone = (
        query.estimator.backbone if device.type == "cpu" else load_backbone(query.estimator.backbone.name, device)
    )
    estimator = NREEstimator(backbone)
    features, keyframes = _moved(query.features, device), _moved(query.keyframes, device)
    image = np.random.default_rng(0).integers(0, 255, (query.camera.height, query.camera.width, 3), dtype=np.uint8)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    estimates = [estimator.localize(features, keyframes, query.camera) for _ in range(2)]
    rows = Table("Whole queries", ("what", "median [ms]", "99 % below [ms]", "a second"))
    for what, function in (
        ("network", lambda: backbone.extract(image)),
        ("estimator", lambda: estimator.localize(features, keyframes, query.camera)),
        ("both", lambda: (backbone.extract(image), estimator.localize(features, keyframes, query.camera))),
    ):
        median, nearly_all = _times(function, device, repetitions, min(ends, perf_counter() + seconds / 5))
        rows.rows.append((what, median, nearly_all, 1e3 / median))
    poses = [estimate.T_cam_map.cpu().numpy() for estimate in estimates if estimate.T_cam_map is not None]
    millimetres, degrees = _apart(poses[0], expected.T_cam_map.numpy())
    memory = torch.cuda.max_memory_allocated() / 1e6 if device.type == "cuda" else None
    rows.notes += [
        f"Pose: {millimetres:.3g} mm and {degrees:.3g} degrees from the CPU's (limits {POSE_LIMITS[0]} and {POSE_LIMITS[1]}).",
        f"Two runs give {'equal' if np.array_equal(*poses) else 'DIFFERENT'} poses.",
        f"Largest memory: {'-' if memory is None else f'{memory:.0f} MB'}. To reach: 8 ms, 99 % below 12 ms, 1000 MB.",
    ]
    yield rows


def _recorded(query: counters.Query) -> tuple[dict[str, Any], Any]:
    """Arguments and results of each operator's first call in a query on the CPU, and the estimate."""
    calls: dict[str, Any] = {}
    original = Operator.__call__

    def recording(operator: Operator[..., Any], *args: Any, **kwargs: Any) -> Any:
        before = _moved(args, torch.device("cpu"), copy=True)
        results = original(operator, *args, **kwargs)
        if not kwargs:
            calls.setdefault(operator.reference.__name__, (before, _moved(results, torch.device("cpu"), copy=True)))
        return results

    with patch.object(Operator, "__call__", recording), reference_only():
        estimate = query.estimator.localize(query.features, query.keyframes, query.camera)
    return calls, estimate


def _moved(value: Any, device: torch.device, copy: bool = False) -> Any:
    """Tensors, and those within tuples, lists and dataclasses, on a device."""
    if isinstance(value, torch.Tensor):
        return value.to(device, copy=copy)
    if isinstance(value, (FeatureMap, ImageFeatures)) or (is_dataclass(value) and _holds_tensors(value)):
        return replace(value, **{part.name: _moved(getattr(value, part.name), device, copy) for part in fields(value)})
    if isinstance(value, (tuple, list)):
        return type(value)(_moved(part, device, copy) for part in value)
    return value


def _holds_tensors(value: Any) -> bool:
    return any(isinstance(getattr(value, part.name), torch.Tensor) for part in fields(value))


def _difference(found: Any, expected: Any) -> float:
    """The largest difference of floating-point numbers; nan where shapes differ."""
    if isinstance(expected, (tuple, list)):
        return max((_difference(a, b) for a, b in zip(found, expected)), default=0.0)
    if not isinstance(expected, torch.Tensor) or not expected.is_floating_point() or not expected.numel():
        return 0.0
    found = found.cpu()
    if found.shape != expected.shape:
        return float("nan")
    return float((found.double() - expected.double()).abs().nan_to_num().max())


def _times(function: Callable[[], Any], device: torch.device, repetitions: int, ends: float) -> tuple[float, float]:
    """Median and 99 % quantile, milliseconds, of calls until the device is done."""
    milliseconds = []
    function()
    while len(milliseconds) < repetitions and (not milliseconds or perf_counter() < ends):
        _wait(device)
        started = perf_counter()
        function()
        _wait(device)
        milliseconds.append(1e3 * (perf_counter() - started))
    return statistics.median(milliseconds), float(np.quantile(milliseconds, 0.99))


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _apart(T: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """Millimetres between the camera centres and degrees between the axes of two poses ``T_cam_map``."""
    centres = [-pose[:3, :3].T @ pose[:3, 3] for pose in (T, other)]
    cosine = (np.trace(T[:3, :3].T @ other[:3, :3]) - 1) / 2
    return 1e3 * float(np.linalg.norm(centres[0] - centres[1])), float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "the CPU (a dry run)"
