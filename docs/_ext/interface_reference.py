# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The directive ``interface-reference``: one section for each file of msg/ or srv/."""

from __future__ import annotations

from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError


def _leading_comment(text: str) -> tuple[str, str]:
    """Splits a file into the text of its first comment and the definition that follows."""
    lines = text.splitlines()
    end = next((i for i, line in enumerate(lines) if not line.startswith("#")), len(lines))
    comment = "\n".join(line.removeprefix("#").strip() for line in lines[:end])
    return comment, "\n".join(lines[end:]).strip("\n")


class InterfaceReference(Directive):
    """Inserts the sections of one folder, ``msg`` or ``srv``."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        environment = self.state.document.settings.env
        folder = Path(environment.config.interface_root) / self.arguments[0]
        files = sorted(folder.glob(f"*.{self.arguments[0]}"))
        if not files:
            raise ExtensionError(f"{folder}: no .{self.arguments[0]} files")
        sections: list[nodes.Node] = []
        for path in files:
            environment.note_dependency(str(path))
            comment, definition = _leading_comment(path.read_text(encoding="utf-8"))
            section = nodes.section(ids=[nodes.make_id(path.stem)], names=[path.stem])
            section += nodes.title("", f"nre_ros/{folder.name}/{path.stem}")
            for paragraph in filter(None, comment.split("\n\n")):
                section += nodes.paragraph(text=" ".join(paragraph.split()))
            section += nodes.literal_block(definition, definition, language="text")
            self.state.document.note_explicit_target(section, section)
            sections.append(section)
        return sections


def setup(app: Sphinx) -> dict[str, bool]:
    """Registers the directive and the setting that names the folder above msg/ and srv/."""
    app.add_config_value("interface_root", "..", "env")
    app.add_directive("interface-reference", InterfaceReference)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
