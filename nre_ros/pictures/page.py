# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The HTML elements of a report: cards, tables, figures and the page itself, without external requests."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

_STYLE = """
:root { color-scheme: light; --line: #dfe4ea; --soft: #f5f7f9; --text: #1f2937; --quiet: #5b6673; --bad: #c8384d; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1000px; padding: 16px; font: 15px/1.45 system-ui, sans-serif; color: var(--text);
  background: #fff; }
h1 { font-size: 1.5em; margin: 0.2em 0; overflow-wrap: anywhere; }
h2 { font-size: 1.15em; margin: 1.6em 0 0.4em; border-bottom: 1px solid var(--line); padding-bottom: 0.2em; }
p { margin: 0.4em 0; } .quiet { color: var(--quiet); font-size: 0.92em; overflow-wrap: anywhere; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 10px; margin: 14px 0; }
.card { background: var(--soft); border: 1px solid var(--line); border-radius: 8px; padding: 10px 12px; }
.card b { display: block; font-size: 1.35em; } .card span { color: var(--quiet); font-size: 0.88em; }
.bad b { color: var(--bad); }
.notes { border-left: 4px solid var(--bad); background: #fdf3f4; padding: 6px 12px; margin: 12px 0; }
.wide { overflow-x: auto; margin: 10px 0; }
table { border-collapse: collapse; font-size: 0.93em; font-variant-numeric: tabular-nums; }
th, td { padding: 4px 12px 4px 0; text-align: left; border-bottom: 1px solid var(--line); vertical-align: top; }
th { font-weight: 600; color: var(--quiet); }
figure { margin: 10px 0 18px; break-inside: avoid; }
figure svg, figure img { width: 100%; height: auto; display: block; }
figcaption { color: var(--quiet); font-size: 0.9em; margin-top: 4px; overflow-wrap: anywhere; }
.worst { break-inside: avoid; margin: 0 0 20px; }
.entry { display: flex; flex-wrap: wrap; gap: 6px 16px; border-top: 1px solid var(--line); padding: 12px 0;
  break-inside: avoid; }
h2 + .entry { border-top: none; }
.entry > div { flex: 1 1 320px; min-width: 0; overflow-wrap: anywhere; } .entry p { margin: 0.25em 0; }
.entry figure { margin: 0; width: 200px; } .entry figure img { border-radius: 4px; }
.blank { height: 120px; border-radius: 4px; background: var(--soft); border: 1px dashed var(--line); }
pre { background: var(--soft); border: 1px solid var(--line); border-radius: 4px; padding: 6px 10px; margin: 8px 0;
  white-space: pre-wrap; overflow-wrap: anywhere; font-size: 0.88em; }
.statement { font-size: 1.08em; margin: 0.8em 0; } li { margin: 0.35em 0; overflow-wrap: anywhere; }
@media (max-width: 600px) { body { padding: 10px; font-size: 14px; } .cards { grid-template-columns: repeat(2, 1fr); }
  figure { overflow-x: auto; } figure svg, figure img { min-width: 640px; }
  .entry figure { width: 46%; } .entry figure img { min-width: 0; } }
@media print { @page { margin: 14mm; } body { max-width: none; padding: 0; font-size: 10pt; } h2 { break-after: avoid; }
  .wide { overflow: visible; } .card { break-inside: avoid; } }
"""


def page(title: str, subtitle: str, parts: list[str]) -> str:
    """Assembles the page.

    Args:
        title: Title of the page.
        subtitle: Line below the title.
        parts: HTML elements.

    Returns:
        The HTML file.
    """
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{escape(title)}</title>\n'
        f"<style>{_STYLE}</style>\n</head>\n<body>\n<h1>{escape(title)}</h1>\n"
        f'<p class="quiet">{escape(subtitle)}</p>\n' + "\n".join(parts) + "\n</body>\n</html>\n"
    )


def heading(text: str) -> str:
    """Creates a heading of a section.

    Args:
        text: Plain text.

    Returns:
        HTML element.
    """
    return f"<h2>{escape(text)}</h2>"


def paragraph(text: str) -> str:
    """Creates a paragraph.

    Args:
        text: Plain text.

    Returns:
        HTML element.
    """
    return f'<p class="quiet">{escape(text)}</p>'


def statement(text: str) -> str:
    """Creates a sentence that stands out.

    Args:
        text: Plain text.

    Returns:
        HTML element.
    """
    return f'<p class="statement"><b>{escape(text)}</b></p>'


def ordered_list(lines: Sequence[str]) -> str:
    """Creates a numbered list.

    Args:
        lines: Plain text, one item each.

    Returns:
        HTML element.
    """
    return "<ol>" + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ol>"


def command(text: str) -> str:
    """Creates a box with a command line.

    Args:
        text: The command.

    Returns:
        HTML element.
    """
    return f"<pre>{escape(text)}</pre>"


def cards(entries: list[tuple[str, str, bool]]) -> str:
    """Creates the cards with the most important figures.

    Args:
        entries: Value, description, and whether the value is highlighted as bad.

    Returns:
        HTML element.
    """
    return (
        '<div class="cards">'
        + "".join(
            f'<div class="card{" bad" if bad else ""}"><b>{escape(value)}</b><span>{escape(description)}</span></div>'
            for value, description, bad in entries
        )
        + "</div>"
    )


def notes(lines: list[str]) -> str:
    """Creates a box of notes that a reader needs before the figures.

    Args:
        lines: Plain text, one note each.

    Returns:
        HTML element, empty without notes.
    """
    return '<div class="notes">' + "".join(f"<p>{escape(line)}</p>" for line in lines) + "</div>" if lines else ""


def table(head: list[str], rows: list[list[str]]) -> str:
    """Creates a table, which scrolls horizontally on a narrow page.

    Args:
        head: Column heads.
        rows: Cells of each row.

    Returns:
        HTML element.
    """
    cells = "".join(f"<th>{escape(text)}</th>" for text in head)
    lines = "".join("<tr>" + "".join(f"<td>{escape(text)}</td>" for text in row) + "</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{cells}</tr></thead><tbody>{lines}</tbody></table></div>'


def figure(svg: str, caption: str) -> str:
    """Creates a figure with a caption.

    Args:
        svg: SVG element.
        caption: Plain text.

    Returns:
        HTML element.
    """
    return f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>"


def picture(name: str, lines: tuple[str, ...], jpeg: str) -> str:
    """Creates a figure of one of the worst images.

    Args:
        name: Name of the image.
        lines: Description of the image, one line each.
        jpeg: JPEG in base64, empty without a picture.

    Returns:
        HTML element.
    """
    image = f'<img alt="{escape(name)}" src="data:image/jpeg;base64,{jpeg}">' if jpeg else ""
    text = "<br>".join(escape(line) for line in lines)
    return f'<figure class="worst">{image}<figcaption><b>{escape(name)}</b><br>{text}</figcaption></figure>'


def entry(title: str, lines: Sequence[str], pictures: Sequence[tuple[str, str]], command_line: str = "") -> str:
    """Creates an entry of a list: small pictures, and text beside them.

    Args:
        title: Title of the entry.
        lines: Paragraphs below the title.
        pictures: Caption, and JPEG in base64 (empty without a picture), of each picture.
        command_line: A command, shown below the text; empty without one.

    Returns:
        HTML element.
    """
    shown = "".join(
        (
            f'<figure><img alt="{escape(caption)}" src="data:image/jpeg;base64,{jpeg}">'
            if jpeg
            else '<figure><div class="blank"></div>'
        )
        + f"<figcaption>{escape(caption)}</figcaption></figure>"
        for caption, jpeg in pictures
    )
    text = f"<p><b>{escape(title)}</b></p>" + "".join(f"<p>{escape(line)}</p>" for line in lines)
    return f'<div class="entry">{shown}<div>{text}{command(command_line) if command_line else ""}</div></div>'
