# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What one query asks of a GPU: launched operations, host waits and host-device copies, counted without a GPU.

The estimator runs on the stand-in for a CUDA device (``cuda_double.py``) and so takes its path for GPUs. Counted is what
follows the network: from the features of the query and the retrieved keyframes to the estimate. The features and keyframes
are on the device when counting begins, and the constants of an earlier query.

With Triton installed, and ``TRITON_INTERPRET=1`` in the environment, its interpreter runs the kernels, and each counts as
one launch. Without Triton the references in torch are counted.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from unittest.mock import patch

import cuda_double
import numpy as np
import torch
from common import Options, Skip, Table

from nre_ros.features import FeatureMap, ImageFeatures, load_backbone
from nre_ros.gallery import Gallery, build_room, camera_pose
from nre_ros.geometry import Camera
from nre_ros.keyframes.building.builder import KeyframeBuilder
from nre_ros.keyframes.types import KeyframeStack, stack_keyframes
from nre_ros.nre import Estimate, NREEstimator, gpu

CAMERA = Camera(640, 480, 525.0, 525.0, 319.5, 239.5)
POINTS = 500
"""Of each of the five keyframes."""
TARGETS = {"launches": 300, "waits": 3, "copies": 2}
"""At most so many for one query, outside of the network."""
_KEYFRAMES = ((-0.3, 0.2, 0.0), (0.0, -0.6, 0.25), (0.4, 0.6, -0.25), (0.0, 0.0, -0.5), (-0.2, 0.4, 0.15))
_QUERY = (0.1, 0.1, 0.1)
"""Places (x, y, yaw), 1.4 m above the floor."""


@dataclass(frozen=True)
class Query:
    """One query: features, keyframes and camera, on the CPU, and the estimator."""

    estimator: NREEstimator
    features: ImageFeatures
    keyframes: KeyframeStack
    camera: Camera


def run(options: Options):
    """Yields the table of totals, and the one of the places that wait or copy."""
    if not cuda_double.available():
        raise Skip("needs a build of torch without CUDA, and its table of device guards")
    counts, _ = count(rendered_query())
    totals = Table("One query of 640x480 against five keyframes of 500 points", ("what", "number", "to reach"))
    totals.rows += [(name, number, TARGETS[name]) for name, number in counts.totals().items()]
    totals.notes.append("Operations of torch; one of them may start several kernels. The network is not counted.")
    yield totals
    places = Table("Waits and copies", ("kind", "what and where", "number"))
    places.rows += [("wait", place, number) for place, number in counts.waits.most_common()]
    places.rows += [("copy", place, number) for place, number in counts.copies.most_common()]
    yield places
    launches = Table("Launched operations", ("operation", "number"), counts.launches.most_common(20))
    launches.notes.append("The twenty most frequent ones.")
    yield launches


def rendered_query(camera: Camera = CAMERA, points: int = POINTS) -> Query:
    """Makes a query in a rendered room.

    Args:
        camera: Of the query and of the five keyframes.
        points: Of each keyframe.
    """
    gallery, backbone = Gallery(build_room(seed=1, pixels_per_metre=150, furniture=False)), load_backbone("xfeat")
    builder, keyframes = KeyframeBuilder(backbone, points), []
    for i, (x, y, yaw) in enumerate(_KEYFRAMES):
        seen = gallery.render(camera, camera_pose([x, y, 1.4], yaw))
        keyframes.append(builder.build_rgbd(f"view-{i}", i, seen.image, seen.depth, camera, seen.T_map_cam))
    x, y, yaw = _QUERY
    image = gallery.render(camera, camera_pose([x, y, 1.4], yaw)).image
    return Query(NREEstimator(backbone), backbone.extract(image), stack_keyframes(keyframes), camera)


def count(query: Query) -> tuple[cuda_double.Counts, Estimate]:
    """Counts what one query asks of a GPU.

    Args:
        query: On the CPU.

    Returns:
        The counts and the estimate, whose tensors are on the stand-in (``cuda_double.to_host``).
    """
    features, keyframes = _features_on_device(query.features), on_device(query.keyframes)
    for _ in range(2):  # the first one brings the constants to the device
        double = cuda_double.CudaDouble()
        with double, patch.object(gpu, "launch", partial(_launch, double.counts)):
            estimate = query.estimator.localize(features, keyframes, query.camera)
    return double.counts, estimate


def _launch(counts: cuda_double.Counts, kernel: Any, programs: tuple[int, ...], *arguments: Any, **constants: Any):
    """``gpu.launch`` by Triton's interpreter on the stand-in's numbers."""
    counts.launches[f"kernel {kernel.__name__}"] += 1
    if all(programs):
        kernel[programs](*map(cuda_double.to_host, arguments), **constants)


def on_device(keyframes: KeyframeStack) -> KeyframeStack:
    """Puts a stack of keyframes on the stand-in."""
    tensors = {name: value for name, value in vars(keyframes).items() if isinstance(value, torch.Tensor)}
    return replace(keyframes, **{name: cuda_double.to_device(tensor) for name, tensor in tensors.items()})


def _features_on_device(features: ImageFeatures) -> ImageFeatures:
    def moved(part: FeatureMap) -> FeatureMap:
        return replace(part, data=cuda_double.to_device(part.data))

    return ImageFeatures(moved(features.coarse), moved(features.fine))


def pose(estimate: Estimate) -> np.ndarray:
    """Returns ``T_cam_map`` [4, 4] of an estimate on the stand-in."""
    assert estimate.T_cam_map is not None, estimate.reason
    return cuda_double.to_host(estimate.T_cam_map).numpy()
