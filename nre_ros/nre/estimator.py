# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The Neural Reprojection Error estimator: features and keyframes in, pose in the map out.

maps -> P3P consensus -> coarse GNC-IRLS -> fine maps -> fine GNC-IRLS -> covariance and support
(Germain, Lepetit, Bourmaud, CVPR 2021).  No randomness but the seed's, no exception for a hard
image: the result then has no pose and says why.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from time import perf_counter

import torch

from nre_ros.errors import NreError
from nre_ros.features import FeatureBackbone, FeatureGrid, ImageFeatures
from nre_ros.geometry import Camera, transform
from nre_ros.keyframes.types import KeyframeStack
from nre_ros.nre.config import EstimatorConfig
from nre_ros.nre.consensus import p3p_consensus
from nre_ros.nre.fine import FineMatch, fine_maps, like_views
from nre_ros.nre.gnc import (
    ROUGH_GAIN,
    cut_windows,
    newton_schedule,
    project_cells,
    refine,
    sigma_schedule,
    smoothed_loss,
)
from nre_ros.nre.maps import NREMaps, chance_loss, keyframe_maps, reprojection_error_maps, sample_loss
from nre_ros.nre.rivals import ALIKE, PLAUSIBLE, SUPPORT, Rival, apart, best_agreement
from nre_ros.nre.uncertainty import pose_covariance


@dataclass(frozen=True)
class Estimate:
    """Outcome for one image.

    T_cam_map: [4, 4] float64 or None with ``reason``.  covariance: [6, 6] of the camera in the
    map (see ``uncertainty``) or None.  cost: smoothed loss per point of the last stage.
    pixels, valid, losses: [N, 2], [N], [N] projections of all points of the stack, whether they
    lie in front of the camera, and their coarse losses there as fractions of ln|Omega|.
    by_chance: [N] the probability that a point supports a pose by mere chance.  fine_values: [M] what the smoothed loss of
    each point of the fine stage leaves of ln|Omega|, as a fraction of it.
    rival: the best pose that puts the camera elsewhere; None where there is none.
    stages: stage -> (T_cam_map [4, 4], cost) after it: P3P, coarse_irls, fine_irls (the published
    names; P3P's cost is the mean loss of the voting points, the others' the smoothed loss).
    sample_maps, sample_points, grid: loss maps [S, H, W] of a few points (fractions of ln|Omega|),
    their indices [S], and where the maps' cells lie in the query; for pictures.
    milliseconds: per stage.
    keyframes, camera: what it was made from; None where there was nothing to make it from.
    """

    T_cam_map: torch.Tensor | None = None
    reason: str = ""
    covariance: torch.Tensor | None = None
    cost: float = math.nan
    pixels: torch.Tensor | None = field(default=None, repr=False)
    valid: torch.Tensor | None = field(default=None, repr=False)
    losses: torch.Tensor | None = field(default=None, repr=False)
    by_chance: torch.Tensor | None = field(default=None, repr=False)
    fine_values: torch.Tensor | None = field(default=None, repr=False)
    rival: Rival | None = None
    stages: dict[str, tuple[torch.Tensor, float]] = field(default_factory=dict, repr=False)
    sample_maps: torch.Tensor | None = field(default=None, repr=False)
    sample_points: torch.Tensor | None = field(default=None, repr=False)
    grid: FeatureGrid | None = None
    milliseconds: dict[str, float] = field(default_factory=dict)
    keyframes: KeyframeStack | None = field(default=None, repr=False)
    camera: Camera | None = None

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
        if config.reciprocal and not backbone.unit_length:
            raise NreError(f"reciprocal matching needs features of unit length, those of {backbone.name} are not")
        self.backbone = backbone
        self.config = config

    @torch.inference_mode()
    def localize(
        self,
        query: ImageFeatures,
        keyframes: KeyframeStack,
        camera: Camera,
        seed: int = 0,
        prior: torch.Tensor | None = None,
        use_re: bool | None = None,
    ) -> Estimate:
        """Pose of the camera that took the query, from a stack of keyframes.

        prior: T_cam_map [4, 4] to be tried beside what the consensus finds; use_re: instead of
        the configuration's.  Input that cannot be used (too few points, shapes that do not fit
        together, features that are not finite) gives an estimate without a pose that names it.
        """
        estimate = self._localize(query, keyframes, camera, seed, prior, use_re)
        return replace(estimate, keyframes=keyframes, camera=camera)

    def _localize(self, query, keyframes, camera, seed, prior, use_re) -> Estimate:
        watch = Stopwatch(query.coarse.data.device)
        problem = _problem(query, keyframes, self.backbone)
        if problem:
            return Estimate(reason=problem)
        maps = self.maps(query, keyframes, self.config.use_re if use_re is None else use_re)
        watch.lap("maps")
        found, failure = self._consensus(keyframes, maps, camera, seed, prior)
        watch.lap("consensus")
        if failure:
            return Estimate(reason=failure, milliseconds=watch.milliseconds)
        stages = {"P3P": (found.T[0], float(found.cost[0]))}
        per_point = math.nan  # the smoothed loss, which the consensus alone does not give
        if self.config.skip_gnc:
            local, kept, sigma = _coarse_windows(found.T[0], keyframes, maps, camera)
        else:
            stages["coarse_irls"] = self._refine_coarse(found.T, keyframes, maps, camera)
            watch.lap("coarse")
            fine, local, kept = self._refine_fine(stages["coarse_irls"][0], query, keyframes, maps, camera)
            watch.lap("fine")
            if fine is None:
                return Estimate(
                    reason=f"only {len(kept)} points lie far enough inside the image under the coarse pose",
                    milliseconds=watch.milliseconds,
                    stages=stages,
                )
            stages["fine_irls"] = fine
            per_point = fine[1] / len(kept)
            sigma = sigma_schedule(self.config.fine_sigma_max, self.config.fine_sigma_min)[-1]
        T, _ = list(stages.values())[-1]
        covariance = pose_covariance(T, keyframes.points[kept], camera, local, sigma)
        left = -smoothed_loss(T[None], keyframes.points[kept], camera, local, sigma)[0]
        estimate = self._judged(T, found.rival, query, keyframes, maps, camera)
        watch.lap("verdict")
        return replace(
            estimate,
            covariance=covariance,
            cost=per_point,
            stages=stages,
            milliseconds=watch.milliseconds,
            fine_values=left / self._fine_chance(query),
        )

    def maps(self, query: ImageFeatures, keyframes: KeyframeStack, use_re: bool = False) -> NREMaps:
        """Coarse NRE maps of the keyframes' points in the query."""
        reciprocal = self.config.reciprocal
        if reciprocal is None:
            reciprocal = self.backbone.unit_length
        maps = keyframe_maps(keyframes, query.coarse, self.backbone.coarse_temperature, reciprocal)
        return reprojection_error_maps(maps) if use_re else maps

    def _consensus(self, keyframes, maps, camera, seed, prior):
        generator = torch.Generator(device="cpu").manual_seed(seed)
        found = p3p_consensus(
            keyframes.points,
            maps,
            camera,
            generator,
            self.config.n_iter_p3p,
            self.config.top_n_p3p,
            self.config.starts,
            prior,
        )
        if len(found.kept) < 4:
            return found, f"only {len(found.kept)} of {len(keyframes)} points match anything in the image"
        if not len(found.T):
            return found, f"none of {self.config.n_iter_p3p} triplets gives a pose"
        return found, ""

    def _refine_coarse(self, T, keyframes, maps, camera):
        """The best of the refined starts, [4, 4], and its cost."""
        schedule = newton_schedule(self.config.coarse_sigma_max, self.config.coarse_sigma_min)
        near = _near_image(T, keyframes.points, camera, maps, 4 * schedule[0])

        def windows(cells, sigma):
            return cut_windows(maps.loss, maps.chance, maps.grid, cells, math.ceil(3 * sigma) + 1, near)

        refined = refine(T, keyframes.points[near], camera, windows, maps.grid, schedule, ROUGH_GAIN)
        best = refined.cost.argmin()
        return refined.T[best], float(refined.cost[best])

    def _refine_fine(self, T, query, keyframes, maps, camera):
        """Fine pose and its cost (None with too few points), its local maps, the points that took part."""
        local, kept = fine_maps(
            T,
            keyframes.points,
            self._fine_matches(T, query, keyframes, camera),
            maps,
            camera,
            self.config.window_size,
            self.backbone.fine_enlarge,
        )
        if len(kept) < 4:
            return None, local, kept
        schedule = newton_schedule(self.config.fine_sigma_max, self.config.fine_sigma_min)
        refined = refine(T[None], keyframes.points[kept], camera, local, local.grid, schedule)
        return (refined.T[0], float(refined.cost[0])), local, kept

    def _fine_matches(self, T, query: ImageFeatures, keyframes: KeyframeStack, camera: Camera) -> list[FineMatch]:
        """What the fine stage looks for: points in like views in both of the backbone's fine maps, where it has two."""
        backbone, ones = self.backbone, torch.ones_like(keyframes.directions[:, 0])
        near = keyframes.fine[:, : backbone.fine_channels]
        if query.closer_look is None:
            return [FineMatch(query.fine, near, ones / backbone.fine_temperature)]
        like = like_views(T, keyframes.points, keyframes.directions, camera)
        closer = keyframes.fine[:, backbone.fine_channels :]
        return [
            FineMatch(query.closer_look(), closer, ones / backbone.closer_temperature),
            FineMatch(query.fine, near, like / backbone.fine_temperature),
        ]

    def _fine_chance(self, query: ImageFeatures) -> float:
        """ln|Omega| of the fine maps (of the coarse ones, if the consensus has the last word)."""
        if self.config.skip_gnc:
            return chance_loss(*query.coarse.data.shape[1:])
        return chance_loss(*(side * self.backbone.fine_enlarge for side in query.fine.data.shape[1:]))

    def _judged(self, T, rival, query, keyframes, maps, camera) -> Estimate:
        """What the pose and its rival explain: the losses at them against those that chance would give."""
        pixels, valid, losses = self._losses(T, keyframes, maps, camera)
        # every third cell will do for a rate
        by_chance = (maps.loss[:, ::3, ::3] < SUPPORT * maps.chance).float().mean((1, 2))

        own = best_agreement(losses, by_chance, keyframes.counts)

        def agreement(T) -> float:
            losses = self._losses(T, keyframes, maps, camera)[2]
            return best_agreement(losses, by_chance, keyframes.counts) / max(own, 1e-9)

        if rival is not None:
            rival = self._rival(rival, T, agreement, query, keyframes, maps, camera)
        samples = _typical_points(losses)
        return Estimate(
            T,
            pixels=pixels,
            valid=valid,
            losses=losses,
            by_chance=by_chance,
            rival=rival,
            sample_maps=maps.loss[samples] / maps.chance,
            sample_points=samples,
            grid=maps.grid,
        )

    def _rival(self, T, first, agreement, query, keyframes, maps, camera) -> Rival | None:
        """The rival T, refined as far as it agrees; None where that brings it to the place of the first pose."""
        share = agreement(T)
        if share < PLAUSIBLE:
            return Rival(T, share)
        T, _ = self._refine_coarse(T[None], keyframes, maps, camera)
        if not bool(apart(T[None], first, keyframes.points)):
            return None
        share = agreement(T)
        if self.config.skip_gnc or share < ALIKE:
            return Rival(T, share)
        fine, local, kept = self._refine_fine(T, query, keyframes, maps, camera)
        if fine is None:
            return Rival(T, share)
        if not bool(apart(fine[0][None], first, keyframes.points)):
            return None
        sigma = sigma_schedule(self.config.fine_sigma_max, self.config.fine_sigma_min)[-1]
        return Rival(fine[0], share, pose_covariance(fine[0], keyframes.points[kept], camera, local, sigma))

    def _losses(self, T, keyframes, maps, camera):
        """Projections [N, 2] of all points, which lie in front [N], and their losses [N] as fractions of ln|Omega|."""
        pixels, valid, _ = camera.project(transform(T, keyframes.points))
        return pixels, valid, sample_loss(maps.loss, maps.grid.to_cells(pixels)[None], valid[None])[0] / maps.chance


def _typical_points(losses: torch.Tensor) -> torch.Tensor:
    """Indices of the point that agrees most, of one that agrees as the middle one does, and of one that does not."""
    order = torch.argsort(losses, stable=True)
    supporting = int((losses < SUPPORT).sum())
    in_view = int((losses < 1.0).sum())
    return order[[0, supporting // 2, max(in_view - 1, 0)]]


def _near_image(T, points, camera: Camera, maps: NREMaps, margin: float) -> torch.Tensor:
    """Indices of the points that at least one of the poses T [B, 4, 4] puts within ``margin`` cells of the image.

    The others weigh nothing in the refinement from there: half of a stack of keyframes, often.
    """
    cells = project_cells(T, points, camera, maps.grid)
    size = cells.new_tensor([maps.loss.shape[2], maps.loss.shape[1]])
    near = ((cells > -margin) & (cells < size + margin)).all(-1).any(0)
    return torch.nonzero(near)[:, 0]


def _coarse_windows(T, keyframes: KeyframeStack, maps: NREMaps, camera: Camera):
    """Coarse windows around one pose, all points, and the scale that goes with them."""
    cells = project_cells(T[None], keyframes.points, camera, maps.grid)
    windows = cut_windows(maps.loss, maps.chance, maps.grid, cells, 4)
    return windows, torch.arange(len(keyframes), device=cells.device), 1.0


def _problem(query: ImageFeatures, keyframes: KeyframeStack, backbone: FeatureBackbone) -> str:
    """Why these cannot give a pose, whatever they show; empty if they may."""
    if len(keyframes) < 4:
        return f"the retrieved keyframes have only {len(keyframes)} points"
    count, views = sum(keyframes.counts), len(keyframes.counts)
    coarse, fine = query.coarse.data, query.fine.data
    closer = 0 if query.closer_look is None else backbone.closer_channels
    expected = {
        "query features": (coarse, (None, None, None)),
        "fine query features": (fine, (None, None, None)),
        "keyframe points": (keyframes.points, (count, 3)),
        "keyframe descriptors": (keyframes.coarse, (count, len(coarse))),
        "fine keyframe descriptors": (keyframes.fine, (count, len(fine) + closer)),
        "keyframe directions": (keyframes.directions, (count, 3)),
        "background descriptors": (keyframes.background, (views, None, len(coarse))),
    }
    for name, (tensor, shape) in expected.items():
        if tensor.dim() != len(shape) or any(a not in (None, b) for a, b in zip(shape, tensor.shape)):
            wanted = ", ".join("any" if side is None else str(side) for side in shape)
            return f"{name} have shape {list(tensor.shape)}, expected [{wanted}]"
    finite = torch.stack([torch.isfinite(tensor).all() for tensor, _ in expected.values()]).tolist()
    spoilt = [name for name, fits in zip(expected, finite) if not fits]
    return f"{' and '.join(spoilt)} are not finite" if spoilt else ""
