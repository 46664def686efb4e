# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The Neural Reprojection Error estimator (Germain, Lepetit, Bourmaud, CVPR 2021).

From features and keyframes to a pose in the map:

    NRE maps -> P3P consensus -> coarse refinement -> fine refinement -> covariance, inliers, alternative pose

The only randomness is the seed's. An image that cannot be localized is no error: the estimate then has no pose, and
says why.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from time import perf_counter

import torch

from nre_ros.errors import NreError
from nre_ros.features import FeatureBackbone, ImageFeatures
from nre_ros.geometry import Camera
from nre_ros.keyframes.types import KeyframeStack
from nre_ros.nre.alternatives import REFINED_FROM, REPORTED_FROM, AlternativePose, are_distinct_poses
from nre_ros.nre.coarse import refine_coarse, unrefined
from nre_ros.nre.config import EstimatorConfig
from nre_ros.nre.consensus import Hypotheses, p3p_consensus
from nre_ros.nre.estimate import Estimate
from nre_ros.nre.fine import FineStage
from nre_ros.nre.gnc import RefinedPose, smoothed_loss
from nre_ros.nre.inliers import INLIER_LOSS, OUTLIER_LOSS, inlier_score
from nre_ros.nre.maps import NREMaps, keyframe_maps, reprojection_error_maps
from nre_ros.nre.problem import MIN_POINTS, PoseProblem, input_fault
from nre_ros.nre.scene_origin import about_origin, in_map, move_camera_origin, scene_origin
from nre_ros.nre.uncertainty import pose_uncertainty


class NREEstimator:
    """Estimates poses from the features of one backbone.

    Args:
        backbone: Gives the temperatures and the lengths of the descriptors.
        config: Settings.

    Raises:
        NreError: The configuration does not fit the backbone.
    """

    def __init__(self, backbone: FeatureBackbone, config: EstimatorConfig = EstimatorConfig()):
        if config.reciprocal and not backbone.unit_length:
            raise NreError(f"reciprocal matching needs features of unit length, those of {backbone.name} are not")
        if config.window_size % (2 * backbone.fine_enlarge):
            raise NreError(
                f"window_size={config.window_size} must be a multiple of {2 * backbone.fine_enlarge} for the features "
                f"{backbone.name}, twice their fine_enlarge"
            )
        self.backbone = backbone
        self.config = config
        self._memory: torch.Tensor | None = None

    @torch.inference_mode()
    def localize(
        self,
        query: ImageFeatures,
        keyframes: KeyframeStack,
        camera: Camera,
        seed: int = 0,
        prior: torch.Tensor | None = None,
        use_re: bool | None = None,
        stop_if_cut: bool = False,
    ) -> Estimate:
        """Estimates the pose of the camera that took an image.

        Args:
            query: Features of the image.
            keyframes: The retrieved keyframes.
            camera: Intrinsics of the image.
            seed: Of the consensus.
            prior: ``[4, 4]`` pose ``T_cam_map`` that is scored beside the poses of the consensus.
            use_re: The plain reprojection error instead of the NRE; None: as configured.
            stop_if_cut: Whether to return after the consensus if its search was cut, with its pose in ``stages`` alone.

        Returns:
            The estimate. Input that cannot be used (too few points, shapes that do not fit, values that are not finite)
            gives an estimate without a pose whose ``reason`` names the fault.
        """
        origin = scene_origin(keyframes.points)
        if origin is None:
            return self._localize(query, keyframes, camera, seed, prior, use_re, stop_if_cut)
        prior = None if prior is None else move_camera_origin(prior, origin)
        estimate = self._localize(query, about_origin(keyframes, origin), camera, seed, prior, use_re, stop_if_cut)
        return in_map(estimate, keyframes, origin)

    def _localize(
        self,
        query: ImageFeatures,
        keyframes: KeyframeStack,
        camera: Camera,
        seed: int,
        prior: torch.Tensor | None,
        use_re: bool | None,
        stop_if_cut: bool,
    ) -> Estimate:
        """Does what ``localize`` describes, in a frame whose origin is near the scene."""
        watch = Stopwatch()
        partial = Estimate(milliseconds=watch.milliseconds, keyframes=keyframes, camera=camera)
        fault = input_fault(query, keyframes)
        if not fault and prior is not None and not bool(torch.isfinite(prior).all()):
            fault = "the prior pose is not finite"
        if fault:
            return replace(partial, reason=fault)
        with self._map_memory(query, keyframes) as memory:
            maps = self.maps(query, keyframes, self.config.use_re if use_re is None else use_re, memory)
            watch.lap("maps")
            problem = PoseProblem(keyframes.points, maps, camera)
            return self._estimate(problem, query, partial, watch, seed, prior, stop_if_cut)

    def _estimate(
        self,
        problem: PoseProblem,
        query: ImageFeatures,
        partial: Estimate,
        watch: Stopwatch,
        seed: int,
        prior: torch.Tensor | None,
        stop_if_cut: bool,
    ) -> Estimate:
        """What follows the maps."""
        maps, camera, keyframes = problem.maps, problem.camera, partial.keyframes
        assert keyframes is not None
        hypotheses = self._consensus(problem, keyframes.counts, seed, prior)
        partial = replace(partial, search_cut=hypotheses.search_cut)
        watch.lap("consensus")
        failure = self._failure(hypotheses, problem)
        if failure:
            return replace(partial, reason=failure)
        stages = {"P3P": (hypotheses.T[0], float(hypotheses.cost[0]))}
        partial = replace(partial, stages=stages)
        if stop_if_cut and hypotheses.search_cut:
            losses = problem.relative_losses(hypotheses.T[0])[2]
            reason = f"{self.config.n_iter_p3p} triplets are too few for a pose with so few inliers"
            return replace(partial, reason=reason, losses=losses, false_match_rate=maps.false_match_rate)
        fine = FineStage(problem, query, keyframes, self.backbone, self.config)
        refined: RefinedPose | None
        if self.config.skip_gnc:
            refined, outlier_loss = unrefined(problem, hypotheses.T[0]), maps.outlier_loss
        else:
            coarse = stages["coarse_irls"] = refine_coarse(problem, hypotheses.T, self.config)
            watch.lap("coarse")
            refined, inside = fine.refine(coarse[0])
            outlier_loss = fine.outlier_loss
            watch.lap("fine")
            if refined is None:
                reason = f"only {inside} points lie far enough inside the image under the coarse pose"
                return replace(partial, reason=reason)
            stages["fine_irls"] = (refined.T, refined.cost)
        uncertainty = pose_uncertainty(refined, camera, keyframes)
        margins = -smoothed_loss(refined.T[None], refined.points, camera, refined.windows, refined.sigma)[0]
        estimate = replace(
            self._with_inliers(partial, refined.T, hypotheses.alternative, problem, fine),
            uncertainty=uncertainty,
            cost=refined.cost / len(refined.points),
            fine_margins=margins / outlier_loss,
        )
        watch.lap("verdict")
        return estimate

    @contextmanager
    def _map_memory(self, query: ImageFeatures, keyframes: KeyframeStack) -> Iterator[torch.Tensor | None]:
        """Memory for one query's maps, which the next query uses again.

        New memory comes from the system, page by page, which takes as long as computing the maps. A GPU's allocator keeps
        its memory anyway.
        """
        coarse = query.coarse.data
        needed = len(keyframes) * coarse[0].numel()
        memory, self._memory = self._memory, None  # a second thread would find none, and get its own
        if coarse.device.type != "cpu" or coarse.dtype != torch.float32:
            memory = None
        elif memory is None or len(memory) < needed:
            memory = torch.empty(needed)
        try:
            yield memory
        finally:
            self._memory = memory

    def maps(
        self,
        query: ImageFeatures,
        keyframes: KeyframeStack,
        use_re: bool = False,
        memory: torch.Tensor | None = None,
    ) -> NREMaps:
        """Computes the coarse NRE maps of all points of the keyframes in the query.

        Args:
            query: Features of the image.
            keyframes: The retrieved keyframes.
            use_re: The plain reprojection error instead of the NRE.
            memory: ``[>= N H W]`` float32 where the maps are written; None: new memory.
        """
        reciprocal = self.config.reciprocal
        if reciprocal is None:
            reciprocal = self.backbone.unit_length
        maps = keyframe_maps(keyframes, query.coarse, self.backbone.coarse_temperature, reciprocal, memory)
        return reprojection_error_maps(maps) if use_re else maps

    def _consensus(
        self, problem: PoseProblem, counts: Sequence[int], seed: int, prior: torch.Tensor | None
    ) -> Hypotheses:
        generator = torch.Generator(device="cpu").manual_seed(seed)
        config = self.config
        return p3p_consensus(problem, generator, config.n_iter_p3p, config.top_n_p3p, config.starts, prior, counts)

    def _failure(self, hypotheses: Hypotheses, problem: PoseProblem) -> str:
        """Why the consensus found no pose; empty where it found one."""
        if len(hypotheses.rows) < MIN_POINTS:
            return f"only {len(hypotheses.rows)} of {len(problem)} points match anything in the image"
        if not len(hypotheses.T):
            return f"none of {self.config.n_iter_p3p} triplets gives a pose"
        return ""

    def _with_inliers(
        self,
        estimate: Estimate,
        T: torch.Tensor,
        alternative: torch.Tensor | None,
        problem: PoseProblem,
        fine: FineStage,
    ) -> Estimate:
        """The estimate with its pose, the inliers of the pose, and the alternative pose."""
        pixels, valid, losses = problem.relative_losses(T)
        rates = problem.maps.false_match_rate
        assert estimate.keyframes is not None
        scorer = _RelativeScore(problem, rates, estimate.keyframes.counts, losses)
        samples = _typical_points(losses)
        return replace(
            estimate,
            T_cam_map=T,
            pixels=pixels,
            valid=valid,
            losses=losses,
            false_match_rate=rates,
            alternative=None if alternative is None else self._refine_alternative(alternative, T, scorer, fine),
            sample_maps=problem.maps[samples].loss / problem.maps.outlier_loss,
            sample_points=samples,
            grid=problem.maps.grid,
        )

    def _refine_alternative(
        self, T: torch.Tensor, found: torch.Tensor, score: _RelativeScore, fine: FineStage
    ) -> AlternativePose | None:
        """The alternative T [4, 4], refined as far as its score deserves.

        None where the refinement brings it to the pose ``found`` [4, 4].
        """
        problem = score.problem
        relative, inliers = score(T)
        if relative < REFINED_FROM:
            return AlternativePose(T, relative, inliers=inliers)
        T, _ = refine_coarse(problem, T[None], self.config)
        if not bool(are_distinct_poses(T[None], found, problem.points)):
            return None
        relative, inliers = score(T)
        coarse = AlternativePose(T, relative, inliers=inliers)
        if self.config.skip_gnc or relative < REPORTED_FROM:
            return coarse
        refined, _ = fine.refine(T)
        if refined is None:
            return coarse
        if not bool(are_distinct_poses(refined.T[None], found, problem.points)):
            return None
        uncertainty = pose_uncertainty(refined, problem.camera, fine.keyframes)
        return replace(coarse, T_cam_map=refined.T, uncertainty=uncertainty)


class _RelativeScore:
    """Inlier scores of poses, as fractions of the score of the pose found, whose relative losses are given; and inliers."""

    def __init__(self, problem: PoseProblem, rates: torch.Tensor, counts: tuple[int, ...], losses: torch.Tensor):
        self.problem, self._rates, self._counts = problem, rates, counts
        self._found = max(inlier_score(losses, rates, counts), 1e-9)

    def __call__(self, T: torch.Tensor) -> tuple[float, torch.Tensor]:
        losses = self.problem.relative_losses(T)[2]
        return inlier_score(losses, self._rates, self._counts) / self._found, losses < INLIER_LOSS


class Stopwatch:
    """Milliseconds per stage of the host's time.

    A GPU works on what was queued while the host goes on, so that a stage's time there is when the host was done with it.
    Only the sum of all stages is the query's time: its end is known on the host.
    """

    def __init__(self) -> None:
        self.milliseconds: dict[str, float] = {}
        self._last = perf_counter()

    def lap(self, stage: str) -> None:
        """Records the time since the last lap as the duration of a stage.

        Args:
            stage: Name of the stage.
        """
        now = perf_counter()
        self.milliseconds[stage] = (now - self._last) * 1e3
        self._last = now


def _typical_points(losses: torch.Tensor) -> torch.Tensor:
    """Indices [3] of the best inlier, of the median inlier, and of the worst point in view."""
    order = torch.argsort(losses, stable=True)
    inliers, in_view = (losses < INLIER_LOSS).sum(), (losses < OUTLIER_LOSS).sum()
    return order[torch.stack([torch.zeros_like(inliers), inliers // 2, (in_view - 1).clamp_min(0)])]
