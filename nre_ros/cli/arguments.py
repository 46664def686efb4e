# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Options that several commands share, and the types of their values."""

from __future__ import annotations

import argparse
import math
import re
import sys
from collections.abc import Sequence
from typing import Any, TypeAlias

from nre_ros.localization.defaults import DEFAULT_MIN_CONFIDENCE

Subparsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
"""What ``add_subparsers`` returns; the class itself is not public."""
_SIDES = (64, 4096)
"""Smallest and largest side of training images, pixels."""


def add_command(
    subparsers: Subparsers, name: str, summary: str, description: str, example: str = ""
) -> argparse.ArgumentParser:
    """Registers a command whose help text keeps its line breaks.

    Args:
        subparsers: The commands to which this one is added.
        name: What the user types.
        summary: One line for the list of commands.
        description: What the command does and what the user sees afterwards.
        example: Command lines, shown below the options.

    Returns:
        The parser of the new command.
    """
    return subparsers.add_parser(
        name,
        help=summary,
        description=description,
        epilog=f"example:\n{example}" if example else None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_device_option(parser: argparse._ActionsContainer) -> None:
    """Adds ``--device``.

    Args:
        parser: The parser of the command.
    """
    parser.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="where the networks and the estimator run; auto takes the GPU if there is one (default: auto)",
    )


def add_fine_head_option(parser: argparse._ActionsContainer) -> None:
    """Adds ``--fine-head``.

    Args:
        parser: The parser of the command.
    """
    parser.add_argument(
        "--fine-head",
        metavar="FILE",
        help="a fine head of your own for xfeat, in place of the one of the package; it is imported on this machine, and "
        "other machines that use the map need `nre_ros weights import FILE`",
    )


def add_image_places(parser: argparse._ActionsContainer) -> None:
    """Adds where the images of a map are: ``--images`` and ``--topic``.

    Args:
        parser: The parser of a command that needs a map's images.
    """
    parser.add_argument(
        "--images",
        action="append",
        metavar="FOLDER_OR_BAG",
        help="folder that the keyframes' names are relative to, or the bag of the map; may be given several times "
        "(default: where the images were when the map was built)",
    )
    parser.add_argument(
        "--topic", default="", metavar="TOPIC", help="topic of the images in a bag (default: the only one)"
    )


def add_seed_option(parser: argparse._ActionsContainer, what: str) -> None:
    """Adds ``--seed``.

    Args:
        parser: The parser of the command.
        what: The random draws that the seed decides, for the help text.
    """
    parser.add_argument("--seed", type=int, default=0, help=f"seed of {what} (default: 0)")


def add_threads_option(parser: argparse._ActionsContainer) -> None:
    """Adds ``--threads``, which the command line applies before the command runs.

    Args:
        parser: The parser of the command, or one of its groups.
    """
    parser.add_argument(
        "--threads",
        type=non_negative_int,
        default=0,
        metavar="N",
        help="CPU threads of torch and of the operators (default: 0, one for each core)",
    )


def add_localizer_options(parser: argparse._ActionsContainer) -> None:
    """Adds the options of a localizer: ``--device``, ``--threads``, ``--seed``, ``--retrieve`` and ``--min-confidence``.

    Args:
        parser: The parser of the command, or one of its groups.
    """
    add_device_option(parser)
    add_threads_option(parser)
    add_seed_option(parser, "the random draws; the same seed gives the same poses")
    parser.add_argument(
        "--retrieve", type=positive_int, default=5, metavar="K", help="keyframes retrieved an image (default: 5)"
    )
    parser.add_argument(
        "--min-confidence",
        type=float,
        default=DEFAULT_MIN_CONFIDENCE,
        metavar="P",
        help="a pose with a lower confidence counts as not found (default: %(default)s)",
    )


def add_animate_option(parser: argparse._ActionsContainer) -> None:
    """Adds ``--animate``.

    Args:
        parser: The parser of the command.
    """
    parser.add_argument(
        "--animate",
        action="store_true",
        help="also write replay.gif, an animated picture; every image in it is localized once more",
    )


def add_node_parameter_option(parser: argparse._ActionsContainer) -> None:
    """Adds ``--param NAME:=VALUE``, which may be given several times.

    Args:
        parser: The parser of the command.
    """
    parser.add_argument(
        "--param",
        action="append",
        default=[],
        type=node_parameter,
        metavar="NAME:=VALUE",
        help="set a parameter of the node; the option may be given several times",
    )


def add_deprecated_name(parser: argparse._ActionsContainer, name: str, option: argparse.Action) -> None:
    """Accepts the former name of an option, with a warning; ``--help`` does not show the former name.

    Args:
        parser: The parser or the group of the option.
        name: The former name, for example ``--peers``.
        option: What ``add_argument`` returned for the option.
    """
    parser.add_argument(
        name,
        action=_DeprecatedName,
        option=option,
        dest=option.dest,
        nargs=option.nargs,
        const=option.const,
        default=option.default,
        type=option.type or str,
        help=argparse.SUPPRESS,
    )


class _DeprecatedName(argparse.Action):
    """Warns, and does what the option does under its present name."""

    def __init__(self, *, option: argparse.Action, **settings: Any):
        super().__init__(**settings)
        self._option = option

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        present = self._option.option_strings[0]
        print(f"warning: {option_string} is deprecated and will be removed: use {present}", file=sys.stderr)
        self._option(parser, namespace, values, option_string)


def add_pose_convention(parser: argparse._ActionsContainer, format_option: str, direction_option: str, of: str) -> None:
    """Adds the two options that say how a text file of poses is written.

    Args:
        parser: The parser of the command.
        format_option: Name of the option for the columns.
        direction_option: Name of the option for the direction.
        of: The poses, for the help text.
    """
    parser.add_argument(
        format_option,
        choices=("auto", "tum", "wxyz", "euroc"),  # pose_columns.POSE_FORMATS, whose module loads torch
        default="auto",
        help=f"columns of {of}: tum (t x y z qx qy qz qw), wxyz (the same with qw first), euroc (wxyz in nanoseconds), "
        "or auto: by the header or the numbers, else tum (default: auto)",
    )
    parser.add_argument(
        direction_option,
        choices=("camera-to-map", "map-to-camera"),
        default="camera-to-map",
        help=f"direction of {of}: of the camera in the map, or its inverse (default: camera-to-map)",
    )


def positive_int(text: str) -> int:
    """Reads a whole number from 1, for argparse.

    Args:
        text: What the user typed.

    Returns:
        The number.

    Raises:
        ValueError: The text is no whole number.
        argparse.ArgumentTypeError: The number is not positive.
    """
    value = int(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"{value} is not positive")
    return value


def non_negative_int(text: str) -> int:
    """Reads a whole number from 0, for argparse.

    Args:
        text: What the user typed.

    Returns:
        The number.

    Raises:
        ValueError: The text is no whole number.
        argparse.ArgumentTypeError: The number is negative.
    """
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{value} is negative")
    return value


def image_size(text: str) -> tuple[int, int]:
    """Reads the size of an image, for argparse.

    Args:
        text: What the user typed, for example ``320x240``.

    Returns:
        Width and height in pixels.

    Raises:
        argparse.ArgumentTypeError: The text is no size, or a side has less than 64 or more than 4096 pixels.
    """
    found = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text)
    if found is None or not all(_SIDES[0] <= int(side) <= _SIDES[1] for side in found.groups()):
        raise argparse.ArgumentTypeError(f"{text!r} is no size WxH with sides of {_SIDES[0]} to {_SIDES[1]} pixels")
    return int(found[1]), int(found[2])


def positive_float(text: str) -> float:
    """Reads a number above 0, for argparse.

    Args:
        text: What the user typed.

    Returns:
        The number.

    Raises:
        ValueError: The text is no number.
        argparse.ArgumentTypeError: The number is not positive.
    """
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"{text} is not positive")
    return value


def non_negative_float(text: str) -> float:
    """Reads a finite number from 0, for argparse.

    Args:
        text: What the user typed.

    Returns:
        The number.

    Raises:
        ValueError: The text is no number.
        argparse.ArgumentTypeError: The number is negative or not finite.
    """
    value = float(text)
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a number from 0")
    return value


def node_parameter(text: str) -> tuple[str, str]:
    """Reads ``NAME:=VALUE``, for argparse.

    Args:
        text: What the user typed.

    Returns:
        Name and value.

    Raises:
        argparse.ArgumentTypeError: The text has no ``:=``, or no name before it.
    """
    name, separator, value = text.partition(":=")
    if not separator or not name:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME:=VALUE")
    return name, value
