# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Makes ``nre_ros/localization/other_places.zip``: the images of other places that travel with the package.

``python benchmarks/other_places_file.py FILE`` needs scikit-image, scikit-learn and lomiri-wallpapers-16.04. It takes the
photographs of public domain, CC0 and CC-BY that do not hang in the gallery's rooms, and renders rooms on whose walls these
photographs hang. No test and no benchmark has these rooms.
"""

from __future__ import annotations

import json
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from nre_ros.gallery.render import Gallery
from nre_ros.gallery.room import build_room
from nre_ros.gallery.textures import PHOTOGRAPHS, POSTERS
from nre_ros.gallery.trajectory import mapping_poses
from nre_ros.geometry import Camera
from nre_ros.learning.photographs import PackagedPhotograph, packaged_photographs
from nre_ros.localization.other_places import CREDITS

_LICENCES = ("public domain", "CC0-1.0", "CC-BY-2.0", "CC-BY-4.0")
_SIDE, _QUALITY = 800, 72
_ROOMS, _VIEWS, _SEED = 8, 8, 61000
_CAMERA = Camera(480, 360, 390.0, 390.0, 239.5, 179.5)


def chosen() -> list[PackagedPhotograph]:
    """Returns the photographs that may travel with the package."""
    hung = {*PHOTOGRAPHS, *POSTERS}
    return [each for each in packaged_photographs() if each.licence in _LICENCES and each.path.name not in hung]


def views(pictures: list[np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
    """Yields names and views (uint8 BGR) of rendered rooms of different sizes with these pictures on the walls."""
    for number in range(_ROOMS):
        rng = np.random.default_rng(_SEED + number)
        size = float(rng.uniform(3, 9)), float(rng.uniform(3, 7)), float(rng.uniform(2.3, 3.5))
        room = Gallery(build_room(_SEED + number, size, pixels_per_metre=250, pictures=pictures))
        for i, T in enumerate(mapping_poses(size, _VIEWS, _SEED + number)):
            yield f"room_{number}_view_{i}.jpg", room.render(_CAMERA, T).image


def main(path: Path) -> None:
    """Writes the file, the same bytes for the same photographs."""
    photographs, credits = [], []
    for each in chosen():
        image = cv2.imread(str(each.path), cv2.IMREAD_COLOR)
        scale = min(_SIDE / max(image.shape[:2]), 1.0)
        photographs.append((each, cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)))
    images = {f"{each.path.stem}.jpg": image for each, image in photographs}
    for name, (each, _) in zip(images, photographs):
        credits.append({"file": name, "author": each.author, "licence": each.licence, "package": each.package})
    rooms = dict(views([image for _, image in photographs]))
    credits += [
        {"file": name, "author": "nre_ros contributors", "licence": "CC-BY-4.0", "package": "nre_ros"} for name in rooms
    ]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        texts = {CREDITS: json.dumps(credits, indent=1, ensure_ascii=False).encode()}
        jpegs = {
            name: cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1].tobytes()
            for name, image in {**images, **rooms}.items()
        }
        for name, data in {**texts, **jpegs}.items():
            archive.writestr(zipfile.ZipInfo(name, (2026, 1, 1, 0, 0, 0)), data)
    print(f"{path}: {len(images)} photographs, {len(rooms)} views, {path.stat().st_size / 2**20:.2f} MiB")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
