# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The errors that a caller can act on; every message is one line and names the offending value.

A hard image is no error: the estimator answers it with a result without a pose.
"""


class NreError(Exception):
    """Base of all errors that this package raises on purpose."""


class CameraError(NreError, ValueError):
    """Intrinsics that no projection can be computed with (zero focal length, NaN, unknown model)."""


class ImageError(NreError, ValueError):
    """An image that cannot be used (empty, wrong shape or type, unreadable file or message)."""


class PoseError(NreError, ValueError):
    """A pose that is not a rigid motion (NaN, a quaternion of no length)."""


class MapError(NreError):
    """A map file that cannot be opened, read or written."""


class MapFormatError(MapError):
    """A file that is no map of ours, is torn, or comes from a newer version."""


class FeatureMismatchError(MapError):
    """A map made with other features than those that are to read it."""


class ImportSourceError(NreError):
    """Input of a map importer that is missing or does not fit together."""


class EvaluationError(NreError):
    """Input of an evaluation that is missing or does not fit together: images, ground truth, an earlier run."""


class WeightsError(NreError):
    """Weights of a network that are absent, damaged, hold code or are not what they are said to be."""
