# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""``nre_ros map view``: pictures of a map, in 3D and from above."""

from __future__ import annotations

import argparse
import webbrowser
from pathlib import Path

from nre_ros.cli.arguments import Subparsers, add_seed_option
from nre_ros.cli.output import print_table
from nre_ros.packages import VIEWS_3D


def add_parser(commands: Subparsers) -> None:
    """Adds the command ``map view``.

    Args:
        commands: The commands of ``nre_ros map``.
    """
    parser = commands.add_parser(
        "view",
        help="write a map as a page in 3D and a picture from above",
        description="Write one HTML file with the keyframes and points in 3D, a keyframe's picture on click, and a PNG "
        "of the same name from above. Of a large map only a part is shown; the title has the numbers.",
    )
    parser.add_argument("map", metavar="MAP.db")
    parser.add_argument("-o", "--output", default="view.html", metavar="VIEW.html", help="default: view.html")
    add_seed_option(parser, "the choice of points")
    parser.add_argument("--show", action="store_true", help="open it in the web browser")
    parser.set_defaults(func=_view, packages=VIEWS_3D)


def _view(args: argparse.Namespace) -> int:
    from nre_ros.errors import NreError
    from nre_ros.keyframes.storage.store import KeyframeStore
    from nre_ros.pictures.map_view import sample_map, write_map_html, write_map_png

    page = Path(args.output)
    try:
        with KeyframeStore.open(args.map) as store:
            sample = sample_map(store, args.seed)
            write_map_html(page, store, sample)
        write_map_png(page.with_suffix(".png"), Path(args.map).name, sample)
    except OSError as error:
        raise NreError(f"{page} cannot be written: {error.strerror}") from error
    print_table(("map", args.map), ("shown", sample.title), ("page", page), ("from above", page.with_suffix(".png")))
    if args.show:
        webbrowser.open(page.resolve().as_uri())
    return 0
