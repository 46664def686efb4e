# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""``nre_ros map index``: makes a map's retrieval index anew."""

from __future__ import annotations

import argparse

from nre_ros.cli.arguments import Subparsers


def add_parser(commands: Subparsers) -> None:
    """Registers ``map index``."""
    parser = commands.add_parser(
        "index",
        help="make a large map's retrieval index anew",
        description="Makes the index that retrieval uses in a large map anew, with all that was added since it was "
        "made.  A map works without; it is then looked through at every query.",
    )
    parser.add_argument("map", metavar="MAP.db")
    parser.set_defaults(func=_index)


def _index(args: argparse.Namespace) -> int:
    from nre_ros.keyframes.retrieval.descriptor_index import update_index
    from nre_ros.keyframes.storage.store import KeyframeStore

    with KeyframeStore.open(args.map, readonly=False) as store:
        print(update_index(store))
    return 0
