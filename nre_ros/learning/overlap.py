# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Trains a global descriptor so that the similarity of two images orders them by their overlap.

The overlap of two views is known from depth. For each image of a group, a softmax over its similarities to the others
predicts the shares of their overlaps with it. The images of one group come from several rooms with the same furniture:
what only looks alike is told apart from what is the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from nre_ros.errors import TrainingError
from nre_ros.features.coarse_head import coarse_maps
from nre_ros.features.descriptor_head import DescriptorHead
from nre_ros.features.xfeat import XFeatBackbone
from nre_ros.learning.augmentation import Augmentation
from nre_ros.learning.gallery_pairs import GalleryPairs
from nre_ros.learning.objectives import Objective
from nre_ros.learning.pair_sources import TrainingPairs
from nre_ros.learning.pairs import PosedView, depth_correspondences

_STEP = 16
"""Pixels between the points whose visibility gives the overlap."""
_LEAST_OVERLAP = 0.05
"""Smaller overlaps count as none."""


@dataclass(frozen=True)
class ViewGroup:
    """Images, and how much they overlap.

    Attributes:
        images: BGR ``[H, W, 3]``, uint8 each.
        overlap: ``[V, V]`` in [0, 1], symmetric: mean share of each view's points that the other one shows.
        source: What the group was made of, for messages.
        left_out: As of ``TrainingPair``.

    Raises:
        TrainingError: Shapes do not fit, or a value is out of its range.
    """

    images: tuple[npt.NDArray[np.uint8], ...]
    overlap: npt.NDArray[np.float64]
    source: str = ""
    left_out: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        count = len(self.images)
        if count < 2 or self.overlap.shape != (count, count):
            raise TrainingError(f"group {self.source}: {count} images and overlaps {self.overlap.shape}")
        if not ((self.overlap >= 0) & (self.overlap <= 1)).all() or not np.array_equal(self.overlap, self.overlap.T):
            raise TrainingError(f"group {self.source}: overlaps are not symmetric or not within [0, 1]")


def view_overlap(views: list[PosedView]) -> npt.NDArray[np.float64]:
    """Computes how much views overlap, from their depths and poses.

    Args:
        views: V views.

    Returns:
        ``[V, V]``, as of ``ViewGroup``.
    """
    shares = np.zeros((len(views), len(views)))
    for i, a in enumerate(views):
        y, x = np.mgrid[_STEP // 2 : a.camera.height : _STEP, _STEP // 2 : a.camera.width : _STEP]
        pixels = np.stack([x.ravel(), y.ravel()], axis=1)
        for j, b in enumerate(views):
            shares[i, j] = 1.0 if i == j else depth_correspondences(a, b, pixels)[1].mean()
    overlap: npt.NDArray[np.float64] = (shares + shares.T) / 2
    return overlap


def ranking_loss(
    similarity: torch.Tensor, overlap: torch.Tensor, temperature: torch.Tensor | float
) -> torch.Tensor | None:
    """Computes the cross-entropy between overlaps and what similarities predict.

    Args:
        similarity: ``[V, V]`` of the views' descriptors.
        overlap: ``[V, V]`` in [0, 1].
        temperature: Of the softmax over the similarities, above 0.

    Returns:
        The mean over the views that overlap with another one, in nats; None where there is none.
    """
    itself = torch.eye(len(overlap), dtype=torch.bool, device=overlap.device)
    target = torch.where(itself | (overlap < _LEAST_OVERLAP), 0.0, overlap).to(similarity)
    mass = target.sum(1)
    rows = mass > 0
    if not bool(rows.any()):
        return None
    logarithm = F.log_softmax((similarity / temperature).masked_fill(itself, -1e9), dim=1)
    return -(target[rows] / mass[rows, None] * logarithm[rows]).sum(1).mean()


class OverlapObjective(Objective):
    """A descriptor head on XFeat, trained with the overlaps of groups of views.

    Args:
        head: The head, on the backbone's device.
        backbone: The network below it, which is not trained.
    """

    def __init__(self, head: DescriptorHead, backbone: XFeatBackbone):
        super().__init__()
        self.head, self._backbone = head, backbone
        self.identity = f"descriptor head {head.width} on {backbone.network_hash}"

    def pair_losses(  # type: ignore[override]  # in the trainer a group takes the place of a pair
        self, pair: ViewGroup, generator: torch.Generator
    ) -> dict[str, torch.Tensor] | None:
        descriptors = torch.cat([self.head(self._coarse(image)) for image in pair.images])
        if not bool(torch.isfinite(descriptors).all()):
            return {"total": torch.tensor(torch.nan)}
        overlap = torch.from_numpy(pair.overlap).to(descriptors)
        loss = ranking_loss(descriptors @ descriptors.T, overlap, self.head.temperature)
        return None if loss is None else {"total": loss, "temperature": self.head.temperature.detach()}

    def _coarse(self, image: npt.NDArray[np.uint8]) -> torch.Tensor:
        """XFeat's coarse features [1, 64, rows, columns]."""
        return F.normalize(coarse_maps(self._backbone.first_pass(image))[:, -self.head.channels :], dim=1)


class OverlapGroups(TrainingPairs):
    """Groups of views of rendered rooms, without end, in the place of pairs.

    Args:
        rooms: Makes rooms, poses and views. At least ``rooms_per_group`` rooms must take turns.
        views: Views of each room in a group.
        rooms_per_group: Rooms in a group.
        augmentation: Of all images.
        seed: Of all groups.
        first: Number of the first group of an iteration.

    Raises:
        TrainingError: A number is out of its range.
    """

    def __init__(
        self,
        rooms: GalleryPairs,
        views: int = 12,
        rooms_per_group: int = 3,
        augmentation: Augmentation = Augmentation(),
        seed: int = 0,
        first: int = 0,
    ):
        super().__init__([rooms], augmentation=augmentation, seed=seed, first=first)
        if views < 2 or rooms_per_group < 1:
            raise TrainingError(f"groups of {views} views in {rooms_per_group} rooms: at least 2 views in 1 room")
        self._rooms, self._views, self._rooms_per_group = rooms, views, rooms_per_group

    def pair(self, index: int) -> ViewGroup:  # type: ignore[override]  # a group takes the place of a pair
        """Makes one group.

        Args:
            index: Number of the group.
        """
        rng = np.random.default_rng([self.seed, index, 5])
        count = self._views * self._rooms_per_group
        images: list[npt.NDArray[np.uint8]] = []
        overlap = np.zeros((count, count))
        for room in range(self._rooms_per_group):
            views = self._rooms.views(self.seed, index * self._rooms_per_group + room, self._views, rng)
            own = slice(room * self._views, (room + 1) * self._views)
            overlap[own, own] = view_overlap(views)
            images += [self._augmentation(view.image, rng) for view in views]
        return ViewGroup(tuple(images), overlap, f"group {index} of seed {self.seed}")
