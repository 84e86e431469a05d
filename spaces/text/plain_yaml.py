"""YAML of unknown origin: plain values only, and no more of them than a person could mean.

An alias costs a few characters and stands for all that its anchor holds; aliases in aliases make a
text of a kilobyte stand for billions of values. What a text stands for is counted before any of it
is made.
"""

from __future__ import annotations

from typing import Any

import yaml

MOST_VALUES = 100_000
"""Values of one document with its aliases written out; the longest recipes have a tenth of it."""


def check_size(root: yaml.Node, most: int = MOST_VALUES) -> None:
    """Make sure that a document with its aliases written out is of a size that can be read.

    Args:
        root: The document, composed; its aliases are nodes that stand in several places.
        most: Most values, keys included.

    Raises:
        yaml.YAMLError: If there are more, or an alias stands inside what it stands for.
    """
    sizes: dict[int, int] = {}
    around: set[int] = set()

    def size(node: yaml.Node) -> int:
        if id(node) in sizes:
            return sizes[id(node)]
        if id(node) in around:
            raise yaml.MarkedYAMLError(
                problem="an alias inside what it stands for", problem_mark=node.start_mark
            )
        around.add(id(node))
        sizes[id(node)] = 1 + sum(map(size, _parts(node)))
        around.discard(id(node))
        return sizes[id(node)]

    if size(root) > most:
        raise yaml.YAMLError(f"expected at most {most} values, aliases written out")


def documents(text: str, loader: type[yaml.SafeLoader] = yaml.SafeLoader) -> list[Any]:
    """The values of every document of a text.

    Raises:
        yaml.YAMLError: If it is no YAML, too large, or nested too deeply.
    """
    reader = loader(text)
    values = []
    try:
        while reader.check_node():
            root = reader.get_node()
            assert root is not None
            check_size(root)
            values.append(reader.construct_document(root))
    except (ValueError, RecursionError) as error:
        raise yaml.YAMLError(str(error)) from error
    finally:
        reader.dispose()
    return values


def plain(text: str) -> Any:
    """The values of a text of one document; ``None`` where it is empty.

    Raises:
        yaml.YAMLError: As ``documents`` does, or if there are several.
    """
    found = documents(text)
    if len(found) > 1:
        raise yaml.YAMLError(f"expected one document, got {len(found)}")
    return found[0] if found else None


def fault(error: yaml.YAMLError) -> str:
    """What is wrong with a text that is no YAML, on one line, without its place."""
    reason = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
    context = getattr(error, "context", None)
    words = " ".join(f"{context + ', ' if context else ''}{reason}".split())
    if "'\\t'" in words:  # the parser's words for it help nobody
        return "expected spaces, got a tab: YAML is indented by spaces alone"
    return f"expected YAML, got: {words}"


def _parts(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return node.value if isinstance(node, yaml.SequenceNode) else []
