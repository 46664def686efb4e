# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The command line as a whole: its list of commands, and the help text of each of them."""

import argparse

import pytest

from nre_ros.cli import build_parser, main
from nre_ros.cli.arguments import node_parameter, non_negative_float, positive_float, positive_int


def commands(parser: argparse.ArgumentParser, *path: str):
    """Yields the words of every command of a parser, and its parser."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, child in action.choices.items():
                yield (*path, name), child
                yield from commands(child, *path, name)


def test_the_help_lists_every_command(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    listing = capsys.readouterr().out
    assert stopped.value.code == 0
    names = [path[0] for path, _ in commands(build_parser()) if len(path) == 1]
    assert len(names) == 11 and all(f"\n  {name} " in listing for name in names)


def test_without_a_command_the_help_is_printed_and_the_exit_code_is_two(capsys):
    assert main([]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and "usage: nre_ros" in printed.err and "\n  localize " in printed.err


@pytest.mark.parametrize(
    "path, parser", [pytest.param(*each, id=" ".join(each[0])) for each in commands(build_parser())]
)
def test_the_help_of_a_command_describes_it_and_all_its_options(path, parser):
    text = parser.format_help()
    assert text.startswith(f"usage: nre_ros {' '.join(path)}") and parser.description
    undescribed = [action.dest for action in parser._actions if not action.help and action.option_strings]
    assert undescribed == []


@pytest.mark.parametrize(
    "path, names", [("evaluate", ["--peers"]), ("map build rgbd", ["--thin-motion", "--thin-overlap"])]
)
def test_the_help_does_not_show_deprecated_names_of_options(path, names):
    parser = {" ".join(words): parser for words, parser in commands(build_parser())}[path]
    accepted = {name for action in parser._actions for name in action.option_strings}
    assert accepted.issuperset(names) and not [name for name in names if name in parser.format_help()]


@pytest.mark.parametrize(
    "read, text", [(positive_int, "0"), (positive_float, "0"), (positive_float, "nan"), (non_negative_float, "inf")]
)
def test_numbers_out_of_range_are_refused(read, text):
    with pytest.raises(argparse.ArgumentTypeError, match=text):
        read(text)


def test_a_node_parameter_is_a_name_and_a_value():
    assert node_parameter("odom_frame:=") == ("odom_frame", "")
    assert node_parameter("a:=b:=c") == ("a", "b:=c")
    with pytest.raises(argparse.ArgumentTypeError, match="NAME:=VALUE"):
        node_parameter("retrieve=3")
