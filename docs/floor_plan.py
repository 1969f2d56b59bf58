"""Draws docs/floor_plan.svg from the imports of the package: `python docs/floor_plan.py` after an arrow has changed.

A floor holds the folders that use only folders of the floors below. An arrow is drawn where a folder uses another one
and reaches it by no other arrows; a folder uses everything that its arrows lead to or may. The picture holds all arrows
as data, which tests compare with the imports of the code.
"""

from __future__ import annotations

import ast
import itertools
import json
import re
import sys
from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "diffsweep"
PICTURE = Path(__file__).with_suffix(".svg")

# Folder -> the folders of ours that it imports; the package's root, which every folder may import from, is left out.
Graph = Mapping[str, frozenset[str]]

_WIDTH, _HEIGHT, _GAP, _STOREY, _MARGIN = 176, 62, 26, 118, 24
_COLOURS = {"sweep": "#e8f1fb", "": "#f6f6f4"}


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Every module that a source file names in an import, and whether it is imported when the file is."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    late = {
        id(below)
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        or (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
        for below in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for name in node.names:
                yield name.name, id(node) not in late
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import; the arrows are read from absolute ones"
            for name in node.names:
                # `from a import b` may name the module a.b; whoever reads this cuts what is no folder.
                yield f"{node.module}.{name.name}", id(node) not in late


def folder_of(path: Path) -> str:
    """The folder of the floor plan that a file of the package lies in: "data", or "sweep/store" below `sweep`."""
    parts = path.relative_to(PACKAGE).parts[:-1]
    return "/".join(parts[: 2 if parts[:1] == ("sweep",) else 1])


def sources() -> list[Path]:
    """All source files of the package."""
    return sorted(PACKAGE.rglob("*.py"))


def reaches(name: str, place: str) -> bool:
    """Whether the dotted name is the place or lies in it."""
    return (name + ".").startswith(place + ".")


def import_graph() -> Graph:
    """What each folder of the package imports of the other folders."""
    folders = {folder_of(path) for path in sources()}
    graph: dict[str, set[str]] = {folder: set() for folder in folders}
    for path in sources():
        folder = folder_of(path)
        for name, _ in imports(path):
            top, _, rest = name.partition(".")
            targets = [target for target in folders if target and reaches(rest, target.replace("/", "."))]
            if top == PACKAGE.name and targets and (target := max(targets, key=len)) != folder:
                graph[folder].add(target)
    return {folder: frozenset(graph[folder]) for folder in sorted(graph)}


def drawn_graph(picture: str) -> Graph:
    """The graph that a picture was drawn from. Raises ValueError if it holds none."""
    data = re.search(r"<metadata>(.*?)</metadata>", picture, re.DOTALL)
    if data is None:
        raise ValueError(f"{PICTURE.name} holds no graph")
    return {folder: frozenset(used) for folder, used in json.loads(data[1]).items()}


def _floors(graph: Graph) -> list[list[str]]:
    """Folders by floor, the lowest first: a folder's floor is one above the highest that it uses."""
    height: dict[str, int] = {}
    rest = dict(graph)
    while rest:
        ready = [folder for folder, used in rest.items() if used <= height.keys()]
        if not ready:
            raise ValueError(f"a circle among {', '.join(sorted(rest))}")
        for folder in ready:
            height[folder] = 1 + max((height[other] for other in rest.pop(folder)), default=-1)
    return [sorted(f for f in height if height[f] == floor) for floor in range(max(height.values()) + 1)]


def _needed(graph: Graph) -> list[tuple[str, str]]:
    """The arrows without those that others imply."""
    below: dict[str, frozenset[str]] = {}
    for floor in _floors(graph):
        for folder in floor:
            below[folder] = graph[folder].union(*(below[other] for other in graph[folder]))
    return [
        (folder, other)
        for folder, used in graph.items()
        for other in sorted(used)
        if not any(other in below[between] for between in used if between != other)
    ]


def _chains(floors: list[list[str]], arrows: list[tuple[str, str]]) -> list[list[str]]:
    """Each arrow as the places that it passes, one on every floor; those between its ends are added to `floors`."""
    height = {folder: floor for floor, folders in enumerate(floors) for folder in folders}
    chains = []
    for a, b in arrows:
        between = [f"{a}>{b}>{floor}" for floor in range(height[a] - 1, height[b], -1)]
        for floor, place in zip(range(height[a] - 1, height[b], -1), between, strict=True):
            floors[floor].append(place)
        chains.append([a, *between, b])
    return chains


def _middles(floors: list[list[str]], chains: list[list[str]]) -> dict[str, float]:
    """Place -> where its middle is, from left to right, such that few arrows cross: neighbours are near each other."""
    pairs = [pair for chain in chains for pair in itertools.pairwise(chain)]

    def spread(floor: list[str], total: float) -> None:
        gap = (total - sum(map(_width, floor))) / len(floor)
        left = gap / 2
        for place in floor:
            middle[place] = left + _width(place) / 2
            left += _width(place) + gap

    total = max(sum(_width(place) + _GAP for place in floor) for floor in floors)
    middle: dict[str, float] = {}
    for floor in floors:
        spread(floor, total)
    for turn in range(24):
        for floor in floors if turn % 2 else reversed(floors):
            near = {place: [middle[b if a == place else a] for a, b in pairs if place in (a, b)] for place in floor}
            wish = {place: sum(near[place]) / len(near[place]) if near[place] else middle[place] for place in floor}
            floor.sort(key=lambda place: (wish[place], place))
            spread(floor, total)
    return middle


def _width(place: str) -> float:
    return 12 if ">" in place else _WIDTH


def _summary(folder: str) -> list[str]:
    """The first sentence of the folder's docstring, in lines that fit a box."""
    text = ast.get_docstring(ast.parse((PACKAGE / folder / "__init__.py").read_text(encoding="utf-8"))) or ""
    words = re.split(r"[:.;,]\s|\n\n|\.$", text, maxsplit=1)[0].split()
    lines = [""]
    for word in words:
        if len(lines[-1]) + len(word) > 29:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines[:3]


def picture(graph: Graph) -> str:
    """The floor plan as an SVG."""
    floors, arrows = _floors(graph), _needed(graph)
    chains = _chains(floors, arrows)
    middle = _middles(floors, chains)
    x = {place: _MARGIN + middle[place] for place in middle}
    width = 2 * _MARGIN + max(sum(_width(place) + _GAP for place in floor) for floor in floors)
    height = 2 * _MARGIN + len(floors) * _STOREY - (_STOREY - _HEIGHT)
    y = {place: height - _MARGIN - floor * _STOREY - _HEIGHT for floor, names in enumerate(floors) for place in names}
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" font-family="sans-serif">',
        f"<metadata>{json.dumps({folder: sorted(used) for folder, used in graph.items()})}</metadata>",
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        '<path d="M0 0L8 4L0 8z" fill="#567"/></marker></defs>',
        f'<rect width="{width:g}" height="{height:g}" fill="white"/>',
    ]
    for chain in chains:
        path = f"M{x[chain[0]]:.0f} {y[chain[0]] + _HEIGHT:.0f}"
        for a, b in itertools.pairwise(chain):
            top, bottom = y[a] + _HEIGHT, y[b]
            bend = (bottom - top) * 0.6
            path += f"C{x[a]:.0f} {top + bend:.0f} {x[b]:.0f} {bottom - bend:.0f} {x[b]:.0f} {bottom:.0f}"
            path += f"V{y[b] + _HEIGHT:.0f}" if b != chain[-1] else ""
        lines.append(f'<path d="{path}" fill="none" stroke="#567" stroke-width="1.3" marker-end="url(#tip)"/>')
    for folder in sorted(graph):
        left, middle = x[folder] - _WIDTH / 2, x[folder]
        colour = _COLOURS["sweep" if folder.startswith("sweep") else ""]
        used = ", ".join(sorted(graph[folder])) or "nothing of ours"
        lines += [
            f"<g><title>{escape(folder or 'diffsweep')} uses {escape(used)}</title>"
            f'<rect x="{left:.0f}" y="{y[folder]:.0f}" width="{_WIDTH}" height="{_HEIGHT}" rx="6" fill="{colour}" '
            'stroke="#345"/>',
            f'<text x="{middle:.0f}" y="{y[folder] + 17:.0f}" text-anchor="middle" font-size="14" '
            f'font-weight="bold">{escape(folder or "__main__")}</text>',
            *(
                f'<text x="{middle:.0f}" y="{y[folder] + 31 + 12 * i:.0f}" text-anchor="middle" font-size="10.5">'
                f"{escape(line)}</text>"
                for i, line in enumerate(_summary(folder))
            ),
            "</g>",
        ]
    return "\n".join([*lines, "</svg>", ""])


if __name__ == "__main__":
    PICTURE.write_text(picture(import_graph()), encoding="utf-8")
    sys.stdout.write(f"{PICTURE}\n")
