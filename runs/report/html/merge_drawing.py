"""The merge tree of a recipe as boxes and lines, ready to be drawn."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass

from spaces.recipes.parameter_values import numbers
from spaces.recipes.recipe import Merge, Model, Parameter, Recipe, Source, merges

WIDTH = 168
HEIGHT = 46
GAP = 130
"""Room between two columns, for what stands on the lines."""

ROW = 64
MOST_LETTERS = 22
"""Letters of a name that fit into a box."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Box:
    """A model or a merge; lengths in CSS pixels.

    Attributes:
        x: Left edge.
        y: Upper edge.
        title: Name of the model, or method.
        detail: The merge's own parameters; empty for models.
        kind: ``model``, ``merge`` or ``result``.
    """

    x: float
    y: float
    title: str
    detail: str
    kind: str

    @property
    def short(self) -> str:
        """The title as far as it fits."""
        if len(self.title) <= MOST_LETTERS:
            return self.title
        return self.title[: MOST_LETTERS - 1] + "…"


@dataclass(frozen=True, kw_only=True, slots=True)
class Link:
    """An input of a merge.

    Attributes:
        path: SVG path.
        x: Where its text stands, its middle.
        y: Likewise.
        text: Weight and density, or layers, in short.
        base: Whether it is the base that deltas are taken from.
    """

    path: str
    x: float
    y: float
    text: str
    base: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Drawing:
    """A merge tree, inputs on the left.

    Attributes:
        width: Of the whole.
        height: Of the whole.
        boxes: Models and merges.
        links: Lines between them.
        words: The same in a sentence, for those who cannot see it.
    """

    width: float
    height: float
    boxes: tuple[Box, ...]
    links: tuple[Link, ...]
    words: str


def drawing(recipe: Recipe) -> Drawing:
    """The tree of a recipe; a merge that is used several times is one box."""
    columns: dict[Model | Merge, int] = {}
    order: list[Model | Merge] = []
    for node in _nodes(recipe.root):
        inputs = [child for child, _, _ in _inputs(node)]
        columns[node] = 1 + max((columns[child] for child in inputs), default=-1)
        order.append(node)
    rows = _rows(order)
    tops = {node: row * ROW for node, row in rows.items()}
    boxes = {
        node: Box(
            x=columns[node] * (WIDTH + GAP),
            y=tops[node],
            title=node.name if isinstance(node, Model) else node.method,
            detail="" if isinstance(node, Model) else _detail(node),
            kind="model"
            if isinstance(node, Model)
            else "result"
            if node is recipe.root
            else "merge",
        )
        for node in order
    }
    links = [
        _link(boxes[child], boxes[node], text, base)
        for node in order
        for child, text, base in _inputs(node)
    ]
    return Drawing(
        width=max(box.x for box in boxes.values()) + WIDTH,
        height=max(box.y for box in boxes.values()) + HEIGHT,
        boxes=tuple(boxes.values()),
        links=tuple(links),
        words="; ".join(_words(merge) for merge in merges(recipe.root)),
    )


def _nodes(root: Merge) -> Iterator[Model | Merge]:
    """Every model and merge once, inputs before what is made of them."""
    seen: dict[Model | Merge, None] = {}
    for merge in merges(root):
        for child, _, _ in _inputs(merge):
            if child not in seen:
                seen[child] = None
                yield child
        if merge not in seen:
            seen[merge] = None
            yield merge


def _rows(order: list[Model | Merge]) -> dict[Model | Merge, float]:
    """Models one below the other; a merge in the middle of its inputs, clear of other merges."""
    rows: dict[Model | Merge, float] = {}
    leaves = [node for node in order if isinstance(node, Model)]
    rows |= {node: float(at) for at, node in enumerate(leaves)}
    for node in order:
        if isinstance(node, Merge):
            wanted = statistics.fmean(rows[child] for child, _, _ in _inputs(node))
            others = [rows[one] for one in rows if isinstance(one, Merge)]
            while any(abs(wanted - other) < 1 for other in others):
                wanted += 0.5
            rows[node] = wanted
    return rows


def _inputs(node: Model | Merge) -> list[tuple[Model | Merge, str, bool]]:
    """What goes into a node, with its text, and whether it is the base of deltas."""
    if isinstance(node, Model):
        return []
    texts: dict[Model | Merge, list[str]] = {}
    for group in node.groups():
        for source in group:
            texts.setdefault(source.of, []).append(_source_text(source))
    found = [(child, _joined(parts), False) for child, parts in texts.items()]
    if node.base is not None and node.base not in texts:
        found.append((node.base, "base", True))
    return found


def _joined(parts: list[str]) -> str:
    known = [part for part in dict.fromkeys(parts) if part]
    return ", ".join(known[:2]) + (f", {len(known) - 2} more" if len(known) > 2 else "")


def _source_text(source: Source) -> str:
    words = [] if source.layers is None else [f"layers {source.layers[0]}–{source.layers[1] - 1}"]
    short = {"weight": "w", "density": "d", "scale": "×"}
    words += [f"{short.get(name, name)} {_mean(value)}" for name, value in source.parameters]
    return " · ".join(words[:3])


def _detail(merge: Merge) -> str:
    short = {"lambda": "λ"}
    return " · ".join(
        f"{short.get(name, name)} {_mean(value)}" for name, value in merge.parameters[:3]
    )


def _mean(value: Parameter) -> str:
    """A value, or the mean of those over depth and tensors with a tilde before it."""
    found = list(numbers(value))
    if all(isinstance(one, bool) for one in found):
        return "on" if all(found) else "off"
    mean = statistics.fmean(float(one) for one in found)
    return ("~" if len(set(found)) > 1 else "") + f"{mean:.2f}"


def _link(child: Box, node: Box, text: str, base: bool) -> Link:
    x1, y1 = child.x + WIDTH, child.y + HEIGHT / 2
    x2, y2 = node.x, node.y + HEIGHT / 2
    bend = GAP / 2
    # Near its input, where lines are still apart.
    return Link(
        path=f"M{x1:g},{y1:g} C{x1 + bend:g},{y1:g} {x2 - bend:g},{y2:g} {x2:g},{y2:g}",
        x=x1 + 6,
        y=y1 - 6,
        text=text,
        base=base,
    )


def _words(merge: Merge) -> str:
    inputs = [
        (child.name if isinstance(child, Model) else child.method) + (f" ({text})" if text else "")
        for child, text, _ in _inputs(merge)
    ]
    return f"{merge.method} of {', '.join(inputs)}"
