# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""``nre_ros weights``: the published NRE networks; verify a download, take it into use, see what is there."""

from __future__ import annotations

import argparse

from nre_ros.errors import WeightsError
from nre_ros.features.checkpoint import PUBLISHED, Checkpoint, read_checkpoint
from nre_ros.features.weights import HOW_TO_GET, import_weights, weights_folder, weights_path

_DESCRIPTION = f"""The weights of the published NRE networks (Germain, Lepetit, Bourmaud, CVPR 2021), for maps built
with --features nre. They are not part of this package: {HOW_TO_GET}. Files are read without running
anything in them."""

EXIT_OTHER = 1


def add_parser(subparsers) -> None:
    """Registers ``weights verify``, ``weights import`` and ``weights list``."""
    parser = subparsers.add_parser(
        "weights", help="the published NRE networks: verify, import, list", description=_DESCRIPTION
    )
    commands = parser.add_subparsers(dest="weights_command", required=True, metavar="COMMAND")
    verify = commands.add_parser(
        "verify",
        help="whether a file is a published one",
        description="Whether a file is one of the two published "
        "ones, byte for byte. Exit code 0: it is; 1: it is another network that can be used; 2: it cannot be used.",
    )
    verify.add_argument("file", metavar="FILE")
    verify.set_defaults(func=_verify)
    importing = commands.add_parser(
        "import",
        help="take files into use",
        description="Copy coarse or fine weights to where the node and the "
        f"other commands find them ({weights_path('coarse').name} and {weights_path('fine').name} in a folder of "
        "the user's data: `nre_ros weights list` names it).",
    )
    importing.add_argument("files", nargs="+", metavar="FILE")
    importing.add_argument(
        "--allow-unpublished", action="store_true", help="also networks other than the published ones (own training)"
    )
    importing.set_defaults(func=_import)
    listing = commands.add_parser("list", help="what is in use", description="What is in use, and where it lies.")
    listing.set_defaults(func=_list)


def _verify(args: argparse.Namespace) -> int:
    checkpoint = read_checkpoint(args.file)
    print(f"{args.file}: {_verdict(checkpoint)}")
    print(f"  {_summary(checkpoint)}")
    print(f"  git blob {checkpoint.blob_id}")
    if not checkpoint.published:
        print(f"  (the published one is {PUBLISHED[checkpoint.level]})")
    print(f"  sha256   {checkpoint.sha256}")
    return 0 if checkpoint.published else EXIT_OTHER


def _import(args: argparse.Namespace) -> int:
    for file in args.files:
        checkpoint, path = import_weights(file, args.allow_unpublished)
        print(f"{path}: {_verdict(checkpoint)}")
    return 0


def _list(_: argparse.Namespace) -> int:
    print(f"folder {weights_folder()}")
    for level in PUBLISHED:
        path = weights_path(level)
        if not path.exists():
            print(f"{level:<6} absent: {HOW_TO_GET}")
            continue
        try:
            checkpoint = read_checkpoint(path)
            print(f"{level:<6} {_verdict(checkpoint)}, {_summary(checkpoint)}")
        except WeightsError as error:
            print(f"{level:<6} unusable: {error}")
    return 0


def _verdict(checkpoint: Checkpoint) -> str:
    if checkpoint.published:
        return f"the published {checkpoint.level} network"
    return f"a usable {checkpoint.level} network, not the published one"


def _summary(checkpoint: Checkpoint) -> str:
    network = checkpoint.network()
    return (
        f"{checkpoint.extraction_layer}, {network.channels} channels, stride {network.stride}, "
        f"{checkpoint.parameters / 1e6:.2f} million parameters"
    )
