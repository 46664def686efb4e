# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The errors that a caller can act on. Every message is one line and names the offending value.

An image that cannot be localized is no error: its result has no pose, and a reason.
"""


class NreError(Exception):
    """Base class of all errors that this package raises on purpose."""


class CameraError(NreError, ValueError):
    """Intrinsics are unusable (zero focal length, NaN, unknown model)."""


class ImageError(NreError, ValueError):
    """An image cannot be used (empty, wrong shape or type, unreadable file or message)."""


class UnknownEncodingError(ImageError):
    """The pixel encoding of an image message is unknown; another decoder may know it."""


class PoseError(NreError, ValueError):
    """A pose is no rigid motion (NaN, a quaternion of length zero)."""


class MapError(NreError):
    """A map file cannot be opened, read or written."""


class MapFormatError(MapError):
    """A file is no map, is damaged, or comes from a newer version."""


class FeatureMismatchError(MapError):
    """A map was made with other features than those of the localizer."""


class ImportSourceError(NreError):
    """Input of a map importer is missing or inconsistent."""


class EvaluationError(NreError):
    """Input of an evaluation (images, ground truth, an earlier run) is missing or inconsistent."""


class WeightsError(NreError):
    """Weights of a network are absent or damaged, hold code, or are those of another network."""


class TrainingError(NreError):
    """Features cannot be trained: the input is unusable, losses are not finite, or a checkpoint does not fit."""


class UnreadableImageError(TrainingError):
    """One image of a recording, or its depth, cannot be read; others may be."""


def one_line(error: BaseException) -> str:
    """Returns the message of an error on one line.

    Args:
        error: The error, for example of a library that writes several lines.
    """
    return " ".join(str(error).split())
