# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The Neural Reprojection Error estimator: ``from nre_ros.nre import NREEstimator``."""

from nre_ros.nre.config import EstimatorConfig, load_config
from nre_ros.nre.estimate import Estimate
from nre_ros.nre.estimator import NREEstimator
from nre_ros.nre.pairwise import localize_pair

__all__ = ["Estimate", "EstimatorConfig", "NREEstimator", "load_config", "localize_pair"]
