# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Settings of the estimator, under their published names where they have one."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from nre_ros.errors import NreError, one_line
from nre_ros.nre.gnc import sigma_schedule

_RENAMED = {"p3p_sigma_max": "coarse_sigma_max", "p3p_sigma_min": "coarse_sigma_min"}
"""Names of the published config.yml -> names of the README beside it, which are ours."""
_WITHOUT_EFFECT = {
    "gnc_minibatch": "refinement works in windows and needs no batches of points",
    "max_fine_imsize": "the backbone has a limit of its own",
}


@dataclass(frozen=True)
class EstimatorConfig:
    """Settings of the estimator; scales are in cells of the stage's grid.

    Attributes:
        n_iter_p3p: Largest number of triplets.
        top_n_p3p: Share of the points used for hypothesis generation, in (0, 1].
        starts: Number of the consensus' poses that are refined.
        coarse_sigma_max: Largest scale of the coarse stage.
        coarse_sigma_min: Smallest scale of the coarse stage.
        fine_sigma_max: Largest scale of the fine stage.
        fine_sigma_min: Smallest scale of the fine stage.
        window_size: Fine cells from one side of a point's window to the other. A window has ``window_size + 1`` cells
            along a side, its centre included. It is a multiple of 4, and of twice the backbone's ``fine_enlarge``, so
            that half a window is a whole number of cells of the feature map.
        reciprocal: Whether to match in both directions; None: if the features have unit length, for only then are the
            correlations of the two directions comparable.
        use_re: The plain reprojection error instead of the NRE.
        skip_gnc: Whether to stop after the consensus.

    Raises:
        ValueError: A value is out of its range; the message names it.
    """

    n_iter_p3p: int = 5000
    top_n_p3p: float = 0.25
    starts: int = 1
    coarse_sigma_max: float = 1.0
    coarse_sigma_min: float = 0.6
    fine_sigma_max: float = 2.0
    fine_sigma_min: float = 0.6
    window_size: int = 16
    reciprocal: bool | None = None
    use_re: bool = False
    skip_gnc: bool = False

    def __post_init__(self) -> None:
        if self.n_iter_p3p < 1 or self.starts < 1:
            raise ValueError(f"n_iter_p3p={self.n_iter_p3p} and starts={self.starts} must be at least 1")
        if not 0 < self.top_n_p3p <= 1:
            raise ValueError(f"top_n_p3p={self.top_n_p3p} must lie in (0, 1]")
        if self.window_size < 8 or self.window_size % 4:
            raise ValueError(f"window_size={self.window_size} must be a multiple of 4, at least 8")
        for stage in ("coarse", "fine"):
            high, low = getattr(self, f"{stage}_sigma_max"), getattr(self, f"{stage}_sigma_min")
            if not sigma_schedule(high, low):
                raise ValueError(f"{stage}_sigma_min={low} to {stage}_sigma_max={high} holds none of the scales")


def load_config(path: Path | str) -> EstimatorConfig:
    """Reads settings from a YAML file with the published names (``config.yml``) or ours.

    Args:
        path: The file.

    Raises:
        NreError: The file cannot be read, or a setting is unknown or has a wrong value.
    """
    import yaml

    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise NreError(f"configuration {path} cannot be read: {one_line(error)}") from error
    if not isinstance(values, dict):
        raise NreError(f"configuration {path}: it is no list of settings")
    known = {field.name for field in fields(EstimatorConfig)}
    settings: dict[str, Any] = {
        str(_RENAMED.get(name, name)): value for name, value in values.items() if name not in _WITHOUT_EFFECT
    }
    unknown = sorted(set(settings) - known, key=str)
    for field in fields(EstimatorConfig):
        if field.name in settings and not _fits(settings[field.name], field.default):
            raise NreError(f"configuration {path}: {field.name} is {settings[field.name]!r}")
    if unknown:
        raise NreError(f"configuration {path}: unknown setting {unknown[0]!r}, known: {', '.join(sorted(known))}")
    try:
        return EstimatorConfig(**settings)
    except (TypeError, ValueError) as error:
        raise NreError(f"configuration {path}: {error}") from error


def _fits(value: object, default: object) -> bool:
    """Whether a value has its default's type; the default of ``reciprocal`` is None, which stands for a bool."""
    if default is None or isinstance(default, bool):
        return isinstance(value, bool) or (default is None and value is None)
    return isinstance(value, (int, float) if isinstance(default, float) else int) and not isinstance(value, bool)
