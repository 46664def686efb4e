# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The animated picture of a replay: the trajectory grows beside the images with their projected map points."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from nre_ros.geometry import pose_error
from nre_ros.pictures.query import NO_LOSS, OUTLIER_LOSS
from nre_ros.replay.picture import ESTIMATE_COLOUR, draw_trajectory
from nre_ros.replay.summary import recorded_pose
from nre_ros.sampling import evenly_spaced_indices

POINT_RADIUS = 3
"""Pixels of the image, which is drawn at half its size."""
_MAX_FRAMES = 36
_MILLISECONDS = 180
"""Duration of a frame."""
_COLOURS = 48
"""A small palette without dithering: noisy photographs make large GIF files."""


@dataclass(frozen=True)
class Frame:
    """One localized image.

    Attributes:
        stamp: Stamp of the image, nanoseconds.
        image: The image with its map points, uint8 BGR [H, W, 3].
        status: The fields of its status message.
    """

    stamp: int
    image: npt.NDArray[np.uint8]
    status: Mapping[str, Any]


def write_animation(
    path: Path | str,
    frames: Sequence[Frame],
    ground_truth: Mapping[int, npt.NDArray[np.float64]],
    keyframes: npt.NDArray[np.float64],
) -> None:
    """Writes an animated GIF, 800 pixels wide.

    Args:
        path: File to write.
        frames: The localized images in their order; of more than 36, evenly spaced ones are shown.
        ground_truth: Stamp -> true pose [4, 4] of the camera in the map; may be empty.
        keyframes: Poses [K, 4, 4] of the map's keyframes.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    positions = np.array([recorded_pose(frame.status)[:2, 3] for frame in frames])
    figure, (above, camera) = plt.subplots(
        1, 2, figsize=(8, 3.9), dpi=100, width_ratios=[1, 1.15], layout="constrained"
    )
    draw_trajectory(above, ground_truth, keyframes)
    above.set_title("")
    above.margins(0.15)
    (dots,) = above.plot([], [], "o", color=ESTIMATE_COLOUR, markersize=4, label="estimated poses")
    (heading,) = above.plot([], [], "-", color=ESTIMATE_COLOUR, linewidth=2.5)
    figure.legend(*above.get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=9)
    shown = camera.imshow(frames[0].image[..., ::-1])
    camera.set_axis_off()
    canvas, pictures = FigureCanvasAgg(figure), []
    for i in evenly_spaced_indices(len(frames), _MAX_FRAMES):
        frame, pose = frames[i], recorded_pose(frames[i].status)
        dots.set_data(*positions[: i + 1].T)
        heading.set_data(*np.stack([pose[:2, 3], pose[:2, 3] + 0.4 * pose[:2, 2]], axis=1))
        shown.set_data(frame.image[..., ::-1])
        camera.set_title(_caption(frame, pose, ground_truth), fontsize=9)
        canvas.draw()
        pictures.append(Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy()))
    plt.close(figure)
    _write_gif(path, pictures)


def _caption(frame: Frame, pose: npt.NDArray[np.float64], ground_truth: Mapping[int, npt.NDArray[np.float64]]) -> str:
    points = f"{frame.status['points_used']} map points support the pose (green: low loss)"
    if frame.stamp not in ground_truth:
        return points
    metres, radians = pose_error(pose, ground_truth[frame.stamp])
    return f"{points}\nerror {100 * metres:.1f} cm, {np.degrees(radians):.2f} deg"


def _write_gif(path: Path | str, pictures: Sequence[Image.Image]) -> None:
    """Writes pictures with one palette for all of them; the last one stays longer."""
    samples = [np.asarray(picture) for picture in pictures[:: len(pictures) // 4 + 1]]
    # the colours of the points cover little of the pictures; a stripe of them puts them into the palette
    mixtures = np.linspace(NO_LOSS, OUTLIER_LOSS, 4)[:, ::-1].astype(np.uint8)
    stripe = np.repeat(mixtures, samples[0].shape[1] // 4, axis=0)[None].repeat(samples[0].shape[0] // 2, axis=0)
    palette = Image.fromarray(np.concatenate([*samples, stripe])).quantize(_COLOURS, Image.Quantize.MEDIANCUT)
    first, *others = (picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures)
    durations = [_MILLISECONDS] * len(others) + [5 * _MILLISECONDS]
    first.save(path, save_all=True, append_images=others, duration=durations, loop=0, optimize=True)
