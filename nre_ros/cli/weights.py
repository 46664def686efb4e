# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""``nre_ros weights``: verifies, imports and lists the weights of the published NRE networks, and own fine heads."""

from __future__ import annotations

import argparse
from pathlib import Path

from nre_ros.cli.arguments import Subparsers, add_command
from nre_ros.cli.output import print_table
from nre_ros.errors import WeightsError
from nre_ros.features.checkpoint import PUBLISHED, Checkpoint, read_checkpoint
from nre_ros.features.weights import (
    FINE_HEAD_SUFFIX,
    HOW_TO_GET,
    fine_heads,
    import_fine_head,
    import_weights,
    weights_folder,
    weights_path,
)

_DESCRIPTION = f"""\
Manages the weights of the published NRE networks (Germain, Lepetit, Bourmaud, CVPR 2021).

You need them only for maps that are built with --features nre; the default features (XFeat) come with the package.
A fine head of your own for XFeat is imported in the same way, on every machine that uses maps made with it.
The published weights are not part of this package. To get them, {HOW_TO_GET}.
Reading a file runs no code from it.
"""
_VERIFY = """\
Reports whether a file is one of the two published ones, byte for byte, and which network it contains.

Exit codes: 0 the file is a published one, 1 it is another network that can be used, 2 it cannot be used.
"""
_IMPORT = f"""\
Copies coarse or fine weights to the folder where the node and the other commands find them, as
{weights_path("coarse").name} and {weights_path("fine").name}. `nre_ros weights list` prints the folder.
A fine head for XFeat ({FINE_HEAD_SUFFIX}) goes there, too: maps that were made with it find it by its hash.
"""

_INFO = """\
Shows what a file of a trained head holds: its kind and size, the network that it was trained on, its channels and
temperature, and how it was made.

Exit codes: 0 the head fits the installed XFeat, 1 it was trained on other weights of XFeat, 2 the file holds no head.
"""

EXIT_OTHER_NETWORK = 1


def add_parser(subparsers: Subparsers) -> None:
    """Registers ``nre_ros weights`` with its commands verify, info, import and list.

    Args:
        subparsers: The commands of ``nre_ros``.
    """
    parser = add_command(
        subparsers,
        "weights",
        "verify, import and list weights of networks; show what a trained head holds",
        _DESCRIPTION,
        "  nre_ros weights import coarse.pth fine.pth\n  nre_ros map build rgbd FOLDER -o office.db --features nre\n",
    )
    commands = parser.add_subparsers(dest="weights_command", required=True, metavar="COMMAND")
    verify = add_command(commands, "verify", "report whether a file is a published one", _VERIFY)
    verify.add_argument("file", metavar="FILE", help="file of weights (.pth)")
    verify.set_defaults(func=_verify)
    info = add_command(commands, "info", "show what a file of a trained head holds", _INFO)
    info.add_argument("file", metavar="FILE", help="file of a head (.safetensors), for instance of `nre_ros train`")
    info.set_defaults(func=_info)
    importing = add_command(commands, "import", "copy files to where the other commands find them", _IMPORT)
    importing.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        help="file of coarse or fine weights (.pth) or of a fine head (.safetensors)",
    )
    importing.add_argument(
        "--allow-unpublished",
        action="store_true",
        help="accept networks other than the published ones, for instance from your own training",
    )
    importing.set_defaults(func=_import)
    listing = add_command(
        commands, "list", "list the imported weights", "Lists the imported weights and prints their folder."
    )
    listing.set_defaults(func=_list)


def _verify(args: argparse.Namespace) -> int:
    checkpoint = read_checkpoint(args.file)
    print(f"{args.file}: {_kind(checkpoint)}")
    print(f"  {_summary(checkpoint)}")
    print(f"  git blob {checkpoint.blob_id}")
    if not checkpoint.published:
        print(f"  (the published one is {PUBLISHED[checkpoint.level]})")
    print(f"  sha256   {checkpoint.sha256}")
    return 0 if checkpoint.published else EXIT_OTHER_NETWORK


def _info(args: argparse.Namespace) -> int:
    from nre_ros.features.head_info import read_head_info

    info = read_head_info(args.file)
    head = info.head
    print_table(
        ("file", args.file),
        ("holds", f"a {head.kind}, {info.parameters:,} parameters, {info.file_bytes / 2**10:.1f} KiB"),
        ("weights", head.weights_hash),
        ("channels", f"{head.channels} (width {head.width})"),
        ("temperature", f"{float(head.temperature.detach()):.4g}"),
        ("network", info.network_hash),
        ("fits", "the installed XFeat" if info.fits else "other weights of XFeat than those installed here"),
        ("description", info.description or None),
    )
    return 0 if info.fits else EXIT_OTHER_NETWORK


def _import(args: argparse.Namespace) -> int:
    for file in args.files:
        if Path(file).suffix == FINE_HEAD_SUFFIX:
            print(f"{import_fine_head(file)}: a fine head for xfeat")
            continue
        checkpoint, path = import_weights(file, args.allow_unpublished)
        print(f"{path}: {_kind(checkpoint)}")
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
            print(f"{level:<6} {_kind(checkpoint)}, {_summary(checkpoint)}")
        except WeightsError as error:
            print(f"{level:<6} unusable: {error}")
    for path in fine_heads():
        print(f"{path.name}: {_head_summary(path)}")
    return 0


def _head_summary(path: Path) -> str:
    """What an imported head is, with the first digits of the hash of its weights."""
    from nre_ros.features.head_info import read_head_info

    try:
        info = read_head_info(path)
    except WeightsError as error:
        return f"unusable: {error}"
    fits = "" if info.fits else ", trained on other weights of XFeat than those installed here"
    return f"a {info.head.kind} for xfeat, {info.head.channels} channels, weights {info.head.weights_hash[:12]}{fits}"


def _kind(checkpoint: Checkpoint) -> str:
    if checkpoint.published:
        return f"the published {checkpoint.level} network"
    return f"a usable {checkpoint.level} network, not the published one"


def _summary(checkpoint: Checkpoint) -> str:
    network = checkpoint.network()
    return (
        f"{checkpoint.extraction_layer}, {network.channels} channels, stride {network.stride}, "
        f"{checkpoint.parameters / 1e6:.2f} million parameters"
    )
