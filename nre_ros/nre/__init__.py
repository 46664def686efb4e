"""The Neural Reprojection Error estimator: ``from nre_ros.nre import NREEstimator``."""

from nre_ros.nre.estimator import Estimate, EstimatorConfig, NREEstimator

__all__ = ["Estimate", "EstimatorConfig", "NREEstimator"]
