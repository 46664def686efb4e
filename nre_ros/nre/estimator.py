"""The Neural Reprojection Error estimator: features and keyframes in, pose in the map out.

maps -> P3P consensus -> coarse GNC-IRLS -> fine maps -> fine GNC-IRLS -> covariance and support
(Germain, Lepetit, Bourmaud, CVPR 2021).  No randomness but the seed's, no exception for a hard
image: the result then has no pose and says why.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from time import perf_counter

import torch

from nre_ros.features import FeatureBackbone, ImageFeatures
from nre_ros.geometry import Camera, transform
from nre_ros.keyframes.types import KeyframeStack
from nre_ros.nre.consensus import p3p_consensus
from nre_ros.nre.fine import fine_maps
from nre_ros.nre.gnc import cut_windows, refine, sigma_schedule
from nre_ros.nre.maps import (
    NREMaps,
    keyframe_maps,
    reprojection_error_maps,
    sample_loss,
)
from nre_ros.nre.uncertainty import pose_covariance

SUPPORT = 0.5
"""A point supports a pose when its loss there is below this fraction of ln|Omega|."""


@dataclass(frozen=True)
class EstimatorConfig:
    """Settings, under their published names where they have one; scales in cells.

    n_iter_p3p: triplets; top_n_p3p: share of the points that vote; starts: poses of the
    consensus that are refined.  window_size: fine cells.  reciprocal: match in both directions;
    None: if the features have unit length, whose correlations are comparable both ways.
    use_re: the plain reprojection error instead of the NRE.  skip_gnc: stop after the consensus.
    """

    n_iter_p3p: int = 3000
    top_n_p3p: float = 0.25
    starts: int = 1
    coarse_sigma_max: float = 2.0
    coarse_sigma_min: float = 0.6
    fine_sigma_max: float = 2.0
    fine_sigma_min: float = 0.6
    window_size: int = 16
    reciprocal: bool | None = None
    use_re: bool = False
    skip_gnc: bool = False


@dataclass(frozen=True)
class Estimate:
    """Outcome for one image.

    T_cam_map: [4, 4] float64 or None with ``reason``.  covariance: [6, 6] of the camera in the
    map (see ``uncertainty``) or None.  cost: smoothed loss per point of the last stage.
    pixels, valid, losses: [N, 2], [N], [N] projections of all points of the stack, whether they
    lie in front of the camera, and their coarse losses there as fractions of ln|Omega|.
    chance_support: how many of the projected points would support a pose by mere chance.
    milliseconds: per stage.
    """

    T_cam_map: torch.Tensor | None = None
    reason: str = ""
    covariance: torch.Tensor | None = None
    cost: float = math.nan
    pixels: torch.Tensor | None = field(default=None, repr=False)
    valid: torch.Tensor | None = field(default=None, repr=False)
    losses: torch.Tensor | None = field(default=None, repr=False)
    chance_support: float = 0.0
    milliseconds: dict[str, float] = field(default_factory=dict)

    @property
    def support(self) -> int:
        """Number of points that support the pose."""
        return 0 if self.losses is None else int((self.losses < SUPPORT).sum())


class Stopwatch:
    """Milliseconds per stage; waits for the device so that each stage pays for itself."""

    def __init__(self, device: torch.device):
        self.milliseconds: dict[str, float] = {}
        self._cuda = device.type == "cuda"
        self._last = self._now()

    def _now(self) -> float:
        if self._cuda:
            torch.cuda.synchronize()
        return perf_counter()

    def lap(self, stage: str) -> None:
        now = self._now()
        self.milliseconds[stage] = (now - self._last) * 1e3
        self._last = now


class NREEstimator:
    """Estimates poses for features of one backbone (its temperatures and descriptor lengths)."""

    def __init__(self, backbone: FeatureBackbone, config: EstimatorConfig = EstimatorConfig()):
        self.backbone = backbone
        self.config = config

    @torch.inference_mode()
    def localize(self, query: ImageFeatures, keyframes: KeyframeStack, camera: Camera, seed: int = 0) -> Estimate:
        """Pose of the camera that took the query, from a stack of keyframes.

        Input that cannot be used (too few points, shapes that do not fit together, features that
        are not finite) gives an estimate without a pose that names it.
        """
        watch = Stopwatch(query.coarse.data.device)
        problem = _problem(query, keyframes)
        if problem:
            return Estimate(reason=problem)
        maps = self._maps(query, keyframes)
        watch.lap("maps")
        T, failure = self._consensus(keyframes, maps, camera, seed)
        watch.lap("consensus")
        if failure:
            return Estimate(reason=failure, milliseconds=watch.milliseconds)
        if self.config.skip_gnc:
            return self._finish(T[0], keyframes, maps, camera, None, math.nan, watch)
        T = self._refine_coarse(T, keyframes, maps, camera)
        watch.lap("coarse")
        T, local, kept, cost = self._refine_fine(T, query, keyframes, maps, camera)
        watch.lap("fine")
        if T is None:
            return Estimate(
                reason=f"only {len(kept)} points project into the image under the coarse pose",
                milliseconds=watch.milliseconds,
            )
        sigma = sigma_schedule(self.config.fine_sigma_max, self.config.fine_sigma_min)[-1]
        covariance = pose_covariance(T, keyframes.points[kept], camera, local, sigma)
        return self._finish(T, keyframes, maps, camera, covariance, cost / len(kept), watch)

    def _maps(self, query: ImageFeatures, keyframes: KeyframeStack) -> NREMaps:
        reciprocal = self.config.reciprocal
        if reciprocal is None:
            reciprocal = self.backbone.unit_length
        maps = keyframe_maps(keyframes, query.coarse, self.backbone.coarse_temperature, reciprocal)
        return reprojection_error_maps(maps) if self.config.use_re else maps

    def _consensus(self, keyframes, maps, camera, seed):
        generator = torch.Generator(device="cpu").manual_seed(seed)
        hypotheses = p3p_consensus(
            keyframes.points, maps, camera, generator,
            self.config.n_iter_p3p, self.config.top_n_p3p, self.config.starts,
        )
        if len(hypotheses.kept) < 4:
            return None, f"only {len(hypotheses.kept)} of {len(keyframes)} points match anything in the image"
        if not len(hypotheses.T):
            return None, f"none of {self.config.n_iter_p3p} triplets gives a pose"
        return hypotheses.T, ""

    def _refine_coarse(self, T, keyframes, maps, camera):
        """The best of the refined starts, [4, 4]."""
        schedule = sigma_schedule(self.config.coarse_sigma_max, self.config.coarse_sigma_min)

        def windows(cells, sigma):
            return cut_windows(maps.loss, maps.chance, maps.grid, cells, math.ceil(3 * sigma) + 1)

        refined = refine(T, keyframes.points, camera, windows, maps.grid, schedule)
        return refined.T[refined.cost.argmin()]

    def _refine_fine(self, T, query, keyframes, maps, camera):
        """Fine pose, its local maps, the points that took part and the final cost."""
        local, kept = fine_maps(
            T, keyframes.points, keyframes.fine, query.fine, maps, camera,
            self.backbone.fine_temperature, self.config.window_size, self.backbone.fine_enlarge,
        )
        if len(kept) < 4:
            return None, local, kept, math.nan
        schedule = sigma_schedule(self.config.fine_sigma_max, self.config.fine_sigma_min)
        refined = refine(T[None], keyframes.points[kept], camera, local, local.grid, schedule)
        return refined.T[0], local, kept, float(refined.cost[0])

    def _finish(self, T, keyframes, maps, camera, covariance, cost, watch) -> Estimate:
        """What the pose explains: the losses at it against those that chance would give."""
        pixels, valid, _ = camera.project(transform(T, keyframes.points))
        cells = maps.grid.to_cells(pixels)
        losses = sample_loss(maps.loss, cells[None], valid[None])[0] / maps.chance
        seen = losses < 1.0
        # every third cell will do for a rate
        by_chance = (maps.loss[:, ::3, ::3] < SUPPORT * maps.chance).float().mean((1, 2))
        watch.lap("verdict")
        return Estimate(
            T, "", covariance, cost, pixels, valid, losses, float(by_chance[seen].sum()), watch.milliseconds
        )


def _problem(query: ImageFeatures, keyframes: KeyframeStack) -> str:
    """Why these cannot give a pose, whatever they show; empty if they may."""
    if len(keyframes) < 4:
        return f"the retrieved keyframes have only {len(keyframes)} points"
    count, views = sum(keyframes.counts), len(keyframes.counts)
    coarse, fine = query.coarse.data, query.fine.data
    expected = {
        "query features": (coarse, (None, None, None)),
        "fine query features": (fine, (None, None, None)),
        "keyframe points": (keyframes.points, (count, 3)),
        "keyframe descriptors": (keyframes.coarse, (count, len(coarse))),
        "fine keyframe descriptors": (keyframes.fine, (count, len(fine))),
        "background descriptors": (keyframes.background, (views, None, len(coarse))),
    }
    for name, (tensor, shape) in expected.items():
        if tensor.dim() != len(shape) or any(a not in (None, b) for a, b in zip(shape, tensor.shape)):
            wanted = ", ".join("any" if side is None else str(side) for side in shape)
            return f"{name} have shape {list(tensor.shape)}, expected [{wanted}]"
    finite = torch.stack([torch.isfinite(tensor).all() for tensor, _ in expected.values()]).tolist()
    spoilt = [name for name, fits in zip(expected, finite) if not fits]
    return f"{' and '.join(spoilt)} are not finite" if spoilt else ""
