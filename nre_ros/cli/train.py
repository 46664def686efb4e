# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""``nre_ros train``: trains features for a user's own domain, and evaluates them by pose error."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from nre_ros.cli import train_evaluate, train_objective
from nre_ros.cli.arguments import (
    Subparsers,
    add_command,
    add_device_option,
    add_seed_option,
    image_size,
    non_negative_float,
    non_negative_int,
    positive_float,
    positive_int,
)
from nre_ros.cli.output import print_table
from nre_ros.packages import ESTIMATOR, PICTURES

if TYPE_CHECKING:
    from nre_ros.learning.run_training import TrainingRun
    from nre_ros.learning.training_data import TrainingData

_DESCRIPTION = """\
Trains a fine head, the small network that makes the features of the fine stage from XFeat's maps, and writes into DIR:

  fine_head.safetensors  the weights with the smallest loss on held-out pairs
  training.json          settings, data, seeds, versions of packages, and the command
  losses.csv             the losses of every step
  losses.png             the same as curves
  checkpoint.pt          from which --resume continues

Training pairs are views of rendered rooms and, where they are named, of your own photographs and recordings. Ctrl-C
ends the training after the present step; the same command with --resume continues it. Without a stop or with several,
the weights are the same (on a GPU, up to rounding).

--published trains a published network instead of a head, and writes coarse.pth or fine.pth in the published layout.
`nre_ros weights import coarse.pth fine.pth --allow-unpublished` makes a trained pair the features nre.
"""
_EXAMPLE = """\
  nre_ros train -o training                                   # rendered rooms only
  nre_ros train -o warehouse --photographs warehouse_photos   # and photographs of your own domain
  nre_ros train -o warehouse --photographs warehouse_photos --resume
  nre_ros train -o coarse --published coarse --steps 20000    # a published network, on a GPU
  nre_ros train evaluate warehouse/fine_head.safetensors -o warehouse_evaluation --rooms 900
"""
_USAGE = "nre_ros train -o DIR [options]\n       nre_ros train evaluate FILE -o DIR [options]"
_MAX_WORKERS = 8
EXIT_INTERRUPTED = 130


def add_parser(subparsers: Subparsers) -> None:
    """Registers ``nre_ros train`` and its command evaluate.

    Args:
        subparsers: The commands of ``nre_ros``.
    """
    summary = "train features for your own domain, and evaluate them"
    parser = add_command(subparsers, "train", summary, _DESCRIPTION, _EXAMPLE)
    parser.usage = _USAGE
    parser.add_argument("-o", "--output", metavar="DIR", help="folder to write to")
    parser.add_argument("--resume", action="store_true", help="continue the training in DIR, with the same settings")
    train_objective.add_options(parser)
    _add_data(parser)
    _add_training(parser)
    _add_validation(parser)
    parser.set_defaults(func=run, usage_error=parser.error, packages=(*ESTIMATOR, *PICTURES))
    commands = parser.add_subparsers(
        dest="train_command",
        metavar="COMMAND",
        help="evaluate: compare trained heads by pose error",
        prog="nre_ros train",
    )
    train_evaluate.add_parser(commands)


def _add_data(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("data", "a pair is drawn from each source as often as its share says")
    group.add_argument(
        "--room-share",
        type=non_negative_float,
        default=1.0,
        metavar="S",
        help="share of the rendered rooms, where every other source has 1; 0: no rooms (default: 1)",
    )
    group.add_argument(
        "--room-pictures",
        default="",
        metavar="FOLDER",
        help="photographs on the walls of the rooms; `photographs`: those of all installed packages (default: those of "
        "the demo)",
    )
    group.add_argument(
        "--photographs",
        action="append",
        default=[],
        metavar="FOLDER",
        help="folder of photographs, sub-folders included; a pair is two views of one photograph as of a poster. The "
        "option may be given several times",
    )
    group.add_argument(
        "--data",
        action="append",
        default=[],
        metavar="SOURCE",
        help="a recording with poses: folder of TUM RGB-D, 7-Scenes or `nre_ros demo`, COLMAP model, kapture folder, bag, "
        "map, Cambridge, EuRoC; recognised by its files, or KIND:PATH. photographs: those of installed packages. The "
        "option may be given several times",
    )
    group.add_argument("--images", metavar="DIR", help="folder of the images of COLMAP models and maps")
    group.add_argument(
        "--size",
        type=image_size,
        default=(320, 240),
        metavar="WxH",
        help="size of the rendered images and of the views of photographs (default: 320x240)",
    )
    group.add_argument(
        "--max-side",
        type=positive_int,
        default=640,
        metavar="N",
        help="larger images of recordings are reduced to this longer side (default: 640)",
    )
    group.add_argument(
        "--points", type=positive_int, default=400, metavar="N", help="largest number of points a pair (default: 400)"
    )


def _add_training(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("training")
    group.add_argument("--steps", type=positive_int, default=2000, metavar="N", help="number of steps (default: 2000)")
    group.add_argument("--pairs", type=positive_int, default=4, metavar="N", help="pairs of images a step (default: 4)")
    group.add_argument(
        "--learning-rate",
        type=positive_float,
        default=2e-3,
        metavar="R",
        help="largest learning rate of Adam, after the warm-up; it falls with half a cosine (default: 0.002)",
    )
    add_seed_option(group, "weights at the start, pairs and all random draws")
    add_device_option(group)
    group.add_argument(
        "--precision",
        choices=("float32", "bfloat16", "float16"),
        default="float32",
        help="in which the networks compute; losses and weights are always float32. float16 needs a GPU (default: float32)",
    )
    group.add_argument(
        "--workers",
        type=non_negative_int,
        metavar="N",
        help=f"processes that make pairs (default: one for each core but one, at most {_MAX_WORKERS})",
    )
    group.add_argument(
        "--checkpoint-every",
        type=positive_int,
        default=100,
        metavar="N",
        help="steps between checkpoints (default: 100)",
    )
    group.add_argument(
        "--tensorboard",
        action="store_true",
        help="also write event files for TensorBoard into DIR/tensorboard (needs tensorboardX or tensorboard)",
    )


def _add_validation(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("validation: losses on held-out rooms, photographs and places")
    group.add_argument(
        "--validate-every", type=positive_int, default=200, metavar="N", help="steps between validations (default: 200)"
    )
    group.add_argument(
        "--validation-pairs",
        type=non_negative_int,
        default=32,
        metavar="N",
        help="number of held-out pairs; 0: no validation, and the last weights are kept (default: 32)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Trains, or continues a training.

    Args:
        arguments: Parsed arguments.

    Returns:
        The exit code; 130 where the training was interrupted.
    """
    if arguments.output is None:
        arguments.usage_error("the following arguments are required: -o/--output")
    start = train_objective.check_options(arguments)
    if arguments.tensorboard:
        from nre_ros.learning.progress import require_tensorboard

        require_tensorboard()
    from nre_ros.features import choose_device
    from nre_ros.learning.run_training import RunOptions, run_training
    from nre_ros.learning.trainer import TrainingConfig, check_training_folder

    config = TrainingConfig(
        steps=arguments.steps,
        pairs_per_step=arguments.pairs,
        learning_rate=arguments.learning_rate,
        checkpoint_every=arguments.checkpoint_every,
        seed=arguments.seed,
        precision=arguments.precision,
    )
    check_training_folder(arguments.output, arguments.resume)  # before recordings are read, which takes long
    device, data = choose_device(arguments.device), _data(arguments)
    trained = train_objective.make_objective(arguments, start, device, data)
    done = run_training(
        trained.objective,
        trained.save,
        trained.file,
        data,
        config,
        Path(arguments.output),
        RunOptions(
            arguments.resume,
            _workers(arguments.workers),
            arguments.tensorboard,
            command=shlex.join(["nre_ros", *sys.argv[1:]]),
        ),
        arguments.validation_pairs,
        arguments.validate_every,
    )
    _print_run(done, config.steps, Path(arguments.output))
    if done.interrupted:
        early = "" if done.weights is not None else ", too early for weights: none were written"
        print(f"interrupted after step {done.step}{early}: the same command with --resume continues", file=sys.stderr)
        return EXIT_INTERRUPTED
    return 0


def _data(arguments: argparse.Namespace) -> TrainingData:
    """Opens the data that the options name, and prints what the user should know of them."""
    from nre_ros.learning.open_pairs import PairOptions
    from nre_ros.learning.training_data import TrainingData

    options = PairOptions(arguments.size, arguments.max_side, arguments.points, images=arguments.images)
    names = [*(f"photographs:{folder}" for folder in arguments.photographs), *arguments.data]
    data = TrainingData.open(names, options, arguments.room_share, arguments.room_pictures)
    for source in data.sources:
        print(f"data: {source.opened.summary}", file=sys.stderr)
        for note in source.opened.notes:
            print(f"note: {note}", file=sys.stderr)
    if arguments.validation_pairs and data.held_out_pairs(arguments.seed) is None:
        print("note: too few images to hold some out: no validation, the last weights are kept", file=sys.stderr)
    return data


def _workers(given: int | None) -> int:
    if given is not None:
        return given
    return min(len(os.sched_getaffinity(0)) - 1, _MAX_WORKERS)


def _print_run(done: TrainingRun, steps: int, folder: Path) -> None:
    best = None if done.best is None else f"{done.best.loss:.4f} on held-out pairs, at step {done.best.step}"
    left_out = None
    if done.left_out:
        left_out = f"{len(done.left_out)} cannot be read, the first: {next(iter(done.left_out.values()))}"
    print_table(
        ("weights", done.weights),
        ("steps", f"{done.step} of {steps}"),
        ("best loss", best),
        ("skipped steps", done.skipped or None),
        ("images left out", left_out),
        ("losses", f"{folder / 'losses.csv'}, {folder / 'losses.png'}"),
        ("seconds", f"{done.seconds:.0f}"),
    )
