# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Every public function of the package describes its arguments.

A function or method is public if its name and the names of its class and the classes around it have no leading
underscore. Functions inside functions are not public. Exempt are functions without arguments, properties, overload
signatures, and methods that override a documented method of a class in this package or a method that rclpy or torch
calls.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "nre_ros"
FILES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))

LIBRARY_METHODS = {
    "LifecycleNode": {"on_configure", "on_activate", "on_deactivate", "on_cleanup", "on_shutdown", "on_error"},
    "Module": {"forward"},
}
"""Base class in a library -> methods that its documentation describes."""
EXEMPT_DECORATORS = {"property", "cached_property", "setter", "overload", "jit"}

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class PublicFunction:
    """A public function or method of one source file."""

    node: Function
    owner: ast.ClassDef | None

    @property
    def arguments(self) -> list[str]:
        """Names of the arguments without ``self`` and ``cls``."""
        spec = self.node.args
        positional = [argument.arg for argument in [*spec.posonlyargs, *spec.args]]
        if self.owner is not None and "staticmethod" not in decorators(self.node):
            positional = positional[1:]
        starred = [argument.arg for argument in [spec.vararg, spec.kwarg] if argument is not None]
        names = positional + [argument.arg for argument in spec.kwonlyargs] + starred
        return [name for name in names if not name.startswith("_")]


def last_name(expression: ast.expr) -> str:
    """Returns the last name of a dotted, called or subscripted expression."""
    if isinstance(expression, ast.Call):
        return last_name(expression.func)
    if isinstance(expression, ast.Subscript):
        return last_name(expression.value)
    if isinstance(expression, ast.Attribute):
        return expression.attr
    return expression.id if isinstance(expression, ast.Name) else ""


def decorators(function: Function) -> set[str]:
    """Returns the names of a function's decorators."""
    return {last_name(decorator) for decorator in function.decorator_list}


def public_functions(body: list[ast.stmt], owner: ast.ClassDef | None = None) -> Iterator[PublicFunction]:
    """Yields the public functions of a module's or a class's body."""
    for node in body:
        if isinstance(node, ast.If | ast.Try):
            yield from public_functions(node.body + node.orelse, owner)
        elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from public_functions(node.body, node)
        elif isinstance(node, Function) and not node.name.startswith("_"):
            yield PublicFunction(node, owner)


def base_documents(owner: ast.ClassDef, method: str, classes: dict[str, list[ast.ClassDef]]) -> bool:
    """Returns whether a base class describes the method."""
    for base in owner.bases:
        if method in LIBRARY_METHODS.get(last_name(base), ()):
            return True
        for candidate in classes.get(last_name(base), []):
            methods = [node for node in candidate.body if isinstance(node, Function) and node.name == method]
            if any(ast.get_docstring(node) for node in methods) or base_documents(candidate, method, classes):
                return True
    return False


def faults(function: PublicFunction) -> list[str]:
    """Returns what a function's docstring lacks."""
    docstring = ast.get_docstring(function.node)
    if docstring is None:
        return ["has no docstring"]
    found: list[str] = []
    summary, _, details = docstring.partition("\n\n")
    if not summary.endswith("."):
        found.append("its first paragraph does not end with a full stop")
    section = re.search(r"^Args:\n((?:[ \t]+\S.*(?:\n|$)|\n(?=[ \t]))+)", details, re.MULTILINE)
    if section is None:
        return [*found, "has no section 'Args:'"]
    described = re.findall(r"^ {4}\*{0,2}(\w+)(?: \([^)]*\))?: \S", section[1].replace("\\", ""), re.MULTILINE)
    if missing := [name for name in function.arguments if name not in described]:
        found.append(f"'Args:' does not describe {', '.join(missing)}")
    if unknown := [name for name in described if name not in function.arguments]:
        found.append(f"'Args:' describes {', '.join(unknown)}, which is no argument")
    return found


@pytest.fixture(scope="module")
def trees() -> dict[str, ast.Module]:
    """Syntax tree of each source file."""
    return {name: ast.parse((PACKAGE / name).read_text(encoding="utf-8")) for name in FILES}


@pytest.fixture(scope="module")
def classes(trees: dict[str, ast.Module]) -> dict[str, list[ast.ClassDef]]:
    """The package's classes by name."""
    found: dict[str, list[ast.ClassDef]] = {}
    for node in (node for tree in trees.values() for node in ast.walk(tree)):
        if isinstance(node, ast.ClassDef):
            found.setdefault(node.name, []).append(node)
    return found


@pytest.mark.parametrize("file", FILES)
def test_docstrings_of_public_functions_describe_every_argument(
    file: str, trees: dict[str, ast.Module], classes: dict[str, list[ast.ClassDef]]
) -> None:
    problems = []
    for function in public_functions(trees[file].body):
        node, owner = function.node, function.owner
        if not function.arguments or decorators(node) & EXEMPT_DECORATORS:
            continue
        if owner is not None and base_documents(owner, node.name, classes):
            continue
        name = f"{owner.name}.{node.name}" if owner is not None else node.name
        problems += [f"nre_ros/{file}:{node.lineno}: {name} {fault}" for fault in faults(function)]
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize(
    "docstring, expected",
    [
        (None, ["has no docstring"]),
        ("Adds two numbers.", ["has no section 'Args:'"]),
        ("Adds two numbers.\n\nArgs:\n    a: The first.\n    b: The second.", []),
        ("Adds two numbers.\n\nArgs:\n    a: The first.", ["'Args:' does not describe b"]),
        (
            "Adds two numbers\n\nArgs:\n    a: The first.\n    b: The second.\n    c: The third.",
            ["its first paragraph does not end with a full stop", "'Args:' describes c, which is no argument"],
        ),
    ],
)
def test_what_a_docstring_lacks_is_found(docstring: str | None, expected: list[str]) -> None:
    method = ast.parse("def add(self, a, b, _cache=None): pass").body[0]
    if docstring is not None:
        method.body.insert(0, ast.Expr(ast.Constant(docstring)))
    private = ast.parse("class _Hidden:\n    def add(self, a): pass\n\ndef _add(a): pass").body
    owner = ast.ClassDef(name="Numbers", bases=[], keywords=[], body=[method], decorator_list=[])
    (found,) = public_functions([owner, *private])
    assert faults(found) == expected
