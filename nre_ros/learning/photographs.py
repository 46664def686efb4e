# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Photographs to train on: those of a folder, and those that other packages ship under free licences.

No photograph to train on is part of this package. ``packaged_photographs`` finds the files of the packages that are installed, and
names author and licence of each for the model card. The licences are those that the packages themselves state.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from nre_ros.errors import ImageError, TrainingError
from nre_ros.features.base import check_image
from nre_ros.keyframes.importers.image_files import read_image
from nre_ros.keyframes.importers.text_files import IMAGE_ENDINGS

MAX_SIDE = 1600
"""Longer side to which larger photographs are reduced, pixels: a view shows at least half of one."""
_BACKGROUNDS = Path("/usr/share/backgrounds")
_PUBLIC_DOMAIN, _CC0, _NO_RESTRICTIONS = "public domain", "CC0-1.0", "no known copyright restrictions"
_BY_2, _BY_4, _BY_SA_3, _BY_SA_4 = "CC-BY-2.0", "CC-BY-4.0", "CC-BY-SA-3.0", "CC-BY-SA-4.0"
_GPL = "GPL-2.0-or-later"

_SCIKIT_IMAGE = {
    # file: author, licence; from the docstrings of skimage.data
    "astronaut.png": ("NASA", _PUBLIC_DOMAIN),
    "brick.png": ("CC0Textures", _CC0),
    "camera.png": ("Lav Varshney", _CC0),
    "chelsea.png": ("Stefan van der Walt", _CC0),
    "coffee.png": ("Rachel Michetti", _CC0),
    "coins.png": ("Brooklyn Museum", _NO_RESTRICTIONS),
    "grass.png": ("Linolafett", _CC0),
    "gravel.png": ("CC0Textures", _CC0),
    "hubble_deep_field.jpg": ("NASA", _PUBLIC_DOMAIN),
    "rocket.jpg": ("SpaceX", _PUBLIC_DOMAIN),
}
_SCIKIT_LEARN = {
    # from datasets/images/README.txt
    "china.jpg": ("danielbuechele", _BY_2),
    "flower.jpg": ("vultilion", _BY_2),
}
_LOMIRI_16 = {
    # from /usr/share/doc/lomiri-wallpapers-16.04/copyright; drawings are left out here and below
    "Bridge_by_Sander_Klootwijk.jpg": ("Sander Klootwijk", _BY_SA_4),
    "Dragonfly_by_Bolly.jpg": ("Bolly", _BY_SA_4),
    "Picture_0B_by_freespace.jpg": ("Trevor Freespace", _BY_4),
    "Picture_1A_by_freespace.jpg": ("Trevor Freespace", _BY_4),
    "Wine_by_Jakkub_Mede.jpg": ("Jakub Mede", _BY_4),
    "aitzgorri_by_Aitzol_Berasategi.jpg": ("Aitzol Berasategi", _BY_4),
    "free_by_Peter_Nerlich.jpg": ("Peter Nerlich", _BY_SA_4),
    "friends_by_Aitzol_Berasategi.jpg": ("Aitzol Berasategi", _BY_4),
    "greentock_by_Peter_Nerlich.jpg": ("Peter Nerlich", _BY_SA_4),
    "life_by_Aitzol_Berasategi.jpg": ("Aitzol Berasategi", _BY_4),
    "picosdeeuropa_by_Aitzol_Berasategi.jpg": ("Aitzol Berasategi", _BY_4),
    "seeding_by_Clements_Engelhardt.jpg": ("Clemens Engelhardt", _CC0),
    "sunset_by_Aitzol_Berasategi.jpg": ("Aitzol Berasategi", _BY_4),
}
_LOMIRI_20 = {"Kleiber_by_Lukas_Baubkus.jpg": ("Lukas Baubkus", _BY_SA_3)}
_MATE = {
    # from /usr/share/doc/mate-backgrounds/copyright
    "mate/nature/Dune.jpg": ("Marco Cogoni, Hylke Bons", _GPL),
    "mate/nature/FreshFlower.jpg": ("Jens Ansorg", _GPL),
    "mate/nature/Garden.jpg": ("Charles Barbin", _GPL),
    "mate/nature/GreenMeadow.jpg": ("Timothy Schellhase, Lapo Calamandrei", _GPL),
    "mate/nature/LadyBird.jpg": ("Charles Barbin", _GPL),
    "mate/nature/RainDrops.jpg": ("blackcombwhistler07", _GPL),
    "mate/nature/Storm.jpg": ("Sergey Nazarov", _GPL),
    "mate/nature/Wood.jpg": ("Jean-François Fortin Tam", _GPL),
    "mate/nature/YellowFlower.jpg": ("Charles Barbin", _GPL),
}
_GNOME = {
    # from /usr/share/doc/gnome-backgrounds/copyright; releases before Debian 12 ship these
    **{
        f"gnome/{name}.jpg": ("Garrett LeSage", _BY_SA_3)
        for name in ("Bokeh_Tails", "Dark_Ivy", "Flowerbed", "Mirror", "Road", "Sandstone", "Waves")
    },
    "gnome/Stones.jpg": ("Felix Leupold", _BY_2),
    "gnome/Godafoss_Iceland.jpg": ("Helena Bartošová", _BY_SA_3),
    "gnome/Icescape.jpg": ("Helena Bartošová", _BY_SA_3),
    "gnome/Waterfalls.jpg": ("Helena Bartošová", _BY_SA_3),
}


@dataclass(frozen=True)
class PackagedPhotograph:
    """A photograph that an installed package ships.

    Attributes:
        package: Name of the package.
        path: The file.
        author: Who made the photograph.
        licence: SPDX identifier, or the package's words.
    """

    package: str
    path: Path
    author: str
    licence: str

    @property
    def name(self) -> str:
        """Package and file, for messages."""
        return f"{self.package}/{self.path.name}"

    def credit(self) -> str:
        """Returns one line for a model card."""
        return f"{self.path.name} ({self.package}): {self.author}, {self.licence}"


def packaged_photographs(backgrounds: Path = _BACKGROUNDS) -> list[PackagedPhotograph]:
    """Finds the photographs of installed packages that may be redistributed.

    The packages are scikit-image and scikit-learn, and Debian's lomiri-wallpapers-16.04, lomiri-wallpapers-20.04,
    mate-backgrounds and gnome-backgrounds. Files whose licence a package does not state are left out, and so are
    drawings.

    Args:
        backgrounds: Folder of the wallpapers.

    Returns:
        The photographs that are there, by package and name.
    """
    known = (
        ("scikit-image", _package_folder("skimage", "data"), _SCIKIT_IMAGE),
        ("scikit-learn", _package_folder("sklearn", "datasets/images"), _SCIKIT_LEARN),
        ("lomiri-wallpapers-16.04", backgrounds, _LOMIRI_16),
        ("lomiri-wallpapers-20.04", backgrounds, _LOMIRI_20),
        ("mate-backgrounds", backgrounds, _MATE),
        ("gnome-backgrounds", backgrounds, _GNOME),
    )
    return [
        PackagedPhotograph(package, folder / file, author, licence)
        for package, folder, files in known
        if folder is not None
        for file, (author, licence) in sorted(files.items())
        if (folder / file).is_file()
    ]


def folder_photographs(folder: Path | str) -> list[tuple[str, Path]]:
    """Finds the image files of a folder and of the folders below it.

    Args:
        folder: The folder.

    Returns:
        Paths in the folder, and files, for ``read_photographs``.

    Raises:
        TrainingError: There is no such folder, or it has no image.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise TrainingError(f"photographs {folder}: not a folder")
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_ENDINGS and path.is_file())
    if not found:
        raise TrainingError(f"photographs {folder}: no image ({', '.join(IMAGE_ENDINGS)}) in this folder or below")
    return [(str(path.relative_to(folder)), path) for path in found]


def read_photographs(
    files: Iterable[tuple[str, Path]], max_side: int = MAX_SIDE
) -> tuple[dict[str, npt.NDArray[np.uint8]], tuple[str, ...]]:
    """Reads photographs; large ones are reduced, so that many fit into memory.

    Args:
        files: Names and files.
        max_side: Longer side to which larger photographs are reduced, pixels.

    Returns:
        Name -> BGR ``[h, w, 3]``, uint8; and one line for each photograph that cannot be read or is too small.

    Raises:
        TrainingError: None can be used.
    """
    photographs: dict[str, npt.NDArray[np.uint8]] = {}
    notes: list[str] = []
    for name, path in files:
        try:
            photographs[name] = _read_reduced(path, max_side)
        except ImageError as error:
            notes.append(f"left out: {error}")
    if not photographs:
        raise TrainingError(f"none of {len(notes)} photographs can be used{next((f', {n}' for n in notes), '')}")
    return photographs, tuple(notes)


def _read_reduced(path: Path, max_side: int) -> npt.NDArray[np.uint8]:
    """BGR [h, w, 3] of a photograph; ``ImageError`` where it cannot be read or features cannot be computed on it."""
    image = read_image(path)
    scale = max_side / max(image.shape[:2])
    if scale < 1:
        size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    try:
        return check_image(image)
    except ImageError as error:
        raise ImageError(f"photograph {path}: {error}") from error


def _package_folder(package: str, folder: str) -> Path | None:
    """A folder of an installed Python package, without importing the package."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0]) / folder
