# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""``nre_ros map index``: makes the retrieval index of a map again."""

from __future__ import annotations

import argparse

from nre_ros.cli.arguments import Subparsers


def add_parser(commands: Subparsers) -> None:
    """Adds the command ``map index``.

    Args:
        commands: The commands of ``nre_ros map``.
    """
    parser = commands.add_parser(
        "index",
        help="make the retrieval index of a large map again",
        description="Make the index that retrieval uses in a large map again, with all keyframes that were added since. "
        "A map works without an index; then each query searches all keyframes.",
    )
    parser.add_argument("map", metavar="MAP.db")
    parser.set_defaults(func=_index)


def _index(args: argparse.Namespace) -> int:
    from nre_ros.keyframes.retrieval.descriptor_index import update_index
    from nre_ros.keyframes.storage.store import KeyframeStore

    with KeyframeStore.open(args.map, readonly=False) as store:
        print(update_index(store))
    return 0
