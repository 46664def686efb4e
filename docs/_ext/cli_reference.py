# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The directive ``cli-reference``: one section for each command of ``nre_ros``, made from its argument parsers."""

from __future__ import annotations

import argparse
import itertools
import os
import textwrap
from collections.abc import Iterator

from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.application import Sphinx


def _commands(parser: argparse.ArgumentParser, title: str = "") -> Iterator[tuple[argparse.ArgumentParser, str]]:
    """Yields every parser with the line that the list of its parent's commands has for it."""
    yield parser, title
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            lines = {choice.dest: choice.help or "" for choice in action._choices_actions}
            for name, sub in action.choices.items():
                if name in lines:  # an alias has no line of its own
                    yield from _commands(sub, lines[name])


def _help(action: argparse.Action, parser: argparse.ArgumentParser) -> str:
    """Returns an option's help with its placeholders filled in."""
    return parser._get_formatter()._expand_help(action) if action.help else ""


def _name(action: argparse.Action) -> str:
    """Returns an option as it is typed: ``-o, --output FILE``."""
    formatter = argparse.HelpFormatter("")
    return formatter._format_action_invocation(action)


class CommandLineReference(Directive):
    """Inserts the sections; takes no arguments."""

    def run(self) -> list[nodes.Node]:
        os.environ.setdefault("COLUMNS", "100")  # argparse wraps usage lines by it
        from nre_ros.cli import build_parser

        sections: list[nodes.Node] = []
        for parser, title in _commands(build_parser()):
            if parser.prog == "nre_ros":
                continue
            section = nodes.section(ids=[nodes.make_id(parser.prog)], names=[parser.prog])
            section += nodes.title("", "", nodes.literal(text=parser.prog))
            description = parser.description or title
            if description:
                section += self._text(description)
            usage = parser.format_usage().removeprefix("usage: ").rstrip()
            section += nodes.literal_block(usage, usage, language="text")
            section += self._options(parser)
            if parser.epilog:
                section += self._text(parser.epilog)
            sections.append(section)
            self.state.document.note_explicit_target(section, section)
        return sections

    @staticmethod
    def _text(description: str) -> list[nodes.Node]:
        """Returns a description or epilog: paragraphs, and indented lines as they are typed."""
        result: list[nodes.Node] = []
        lines = description.strip("\n").splitlines()
        for indented, group in itertools.groupby(filter(str.strip, lines), lambda line: line.startswith("  ")):
            text = textwrap.dedent("\n".join(group))
            if indented:
                result.append(nodes.literal_block(text, text, language="text"))
            else:
                result.append(nodes.paragraph(text=" ".join(text.split())))
        return result

    @staticmethod
    def _options(parser: argparse.ArgumentParser) -> list[nodes.Node]:
        """Returns the list of a command's arguments and options."""
        options = nodes.definition_list()
        for action in parser._actions:
            if isinstance(action, (argparse._HelpAction, argparse._SubParsersAction)):
                continue
            if action.help == argparse.SUPPRESS:
                continue
            item = nodes.definition_list_item()
            item += nodes.term("", "", nodes.literal(text=_name(action)))
            item += nodes.definition("", nodes.paragraph(text=_help(action, parser)))
            options += item
        return [options] if len(options) else []


def setup(app: Sphinx) -> dict[str, bool]:
    """Registers the directive."""
    app.add_directive("cli-reference", CommandLineReference)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
