"""YAML text to plain values, with the line of every key and all faults of the text at once."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from spaces.text.plain_yaml import check_size, fault
from spaces.text.terminal_text import printable

Place = tuple[str | int, ...]
"""Where a value stands: keys and list positions from the top."""

_MOST_VALUES = 20_000
"""Values of a config, keys and aliases included; none is this long."""


@dataclass(frozen=True, kw_only=True, slots=True)
class YamlProblem:
    """One fault.

    Attributes:
        text: What was expected and what was found.
        place: The key it is about; empty for the whole document.
        line: Line in the text from 1; ``None`` takes the line of the place.
    """

    text: str
    place: Place = ()
    line: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class YamlDocument:
    """A parsed text.

    Attributes:
        name: What to call the text in messages, such as its path.
        data: Its values; ``None`` when the text is empty or broken. Keys are always strings.
        lines: Line of each key and list item, from 1.
        problems: Faults of the text itself.
    """

    name: str
    data: Any
    lines: dict[Place, int]
    problems: tuple[YamlProblem, ...] = ()

    def line(self, place: Place) -> int:
        """The line of a place, or of the nearest place around it."""
        while place and place not in self.lines:
            place = place[:-1]
        return self.lines.get(place, 1)

    def message(self, problem: YamlProblem) -> str:
        """The problem as one line: ``search.yaml:14: space.density: expected ...``."""
        line = self.line(problem.place) if problem.line is None else problem.line
        where = f"{path_text(problem.place)}: " if problem.place else ""
        return printable(f"{self.name}:{line}: {where}{problem.text}")

    def messages(self, problems: list[YamlProblem]) -> list[str]:
        """Problems as lines, each once, in the order of the text."""
        ordered = sorted(problems, key=lambda p: self.line(p.place) if p.line is None else p.line)
        return list(dict.fromkeys(self.message(problem) for problem in ordered))


def path_text(place: Place) -> str:
    """A place in words: ``tasks[0].metric``; names that are not words are quoted."""
    text = ""
    for part in place:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            plain = re.fullmatch(r"[\w.\-]+", part)
            text += ("." if text else "") + (part if plain else shown(part))
    return text


def shown(value: Any) -> str:
    """A value as it would stand in YAML, on one line, cut to a readable length."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        inner = ", ".join(f"{key}: {shown(item)}" for key, item in list(value.items())[:8])
        text = "{" + inner + "}"
    elif isinstance(value, list | tuple):
        text = "[" + ", ".join(shown(item) for item in value[:8]) + "]"
    else:
        text = repr(value)
    text = printable(text)
    return text if len(text) <= 80 else text[:77] + "..."


class _ConfigLoader(yaml.SafeLoader):
    """YAML as people mean it here: ``1e-3`` is a number, dates stay text, ``on: x`` keeps its key.

    Two habits of YAML 1.1 are dropped: floats without a dot being text, and dates.
    """


class _ConfigDumper(yaml.SafeDumper):
    """Writes what the loader reads back as the same values."""


_EXPONENT = re.compile(r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)[eE][-+]?\d+\Z")

for _side in (_ConfigLoader, _ConfigDumper):
    _side.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    _side.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT, list("-+.0123456789"))


def dump(data: Any) -> str:
    """Plain values as YAML, keys in their order; ``parse`` gives the same values back."""
    text: str = yaml.dump(
        data, Dumper=_ConfigDumper, sort_keys=False, allow_unicode=True, width=100, indent=2
    )
    return text


def parse(text: str, name: str) -> YamlDocument:
    """Read a YAML text whose top is meant to be a mapping.

    Returns:
        The document; look at its ``problems`` before its data.
    """
    loader: _ConfigLoader | None = None
    try:
        loader = _ConfigLoader(text)
        root = loader.get_single_node()
        if root is None:
            return _broken(name, YamlProblem(text="expected a mapping of keys, got an empty file"))
        check_size(root, _MOST_VALUES)
        reading = _NodeReading(loader)
        data = reading.value(root, ())
    except yaml.YAMLError as error:
        return _broken(name, _syntax_problem(error))
    except RecursionError:
        return _broken(name, YamlProblem(text="expected a config, got one nested too deeply"))
    finally:
        if loader is not None:
            loader.dispose()
    problems = list(reading.problems)
    if not isinstance(data, dict) and not problems:
        problems.append(YamlProblem(text=f"expected a mapping of keys, got {shown(data)}"))
    return YamlDocument(name=name, data=data, lines=reading.lines, problems=tuple(problems))


def _broken(name: str, problem: YamlProblem) -> YamlDocument:
    return YamlDocument(name=name, data=None, lines={}, problems=(problem,))


def _syntax_problem(error: yaml.YAMLError) -> YamlProblem:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    text = fault(error)
    if mark is None:
        return YamlProblem(text=text)
    return YamlProblem(text=f"{text} (column {mark.column + 1})", line=mark.line + 1)


class _NodeReading:
    """One pass over the nodes: values, lines, and what is wrong."""

    def __init__(self, loader: _ConfigLoader) -> None:
        self.lines: dict[Place, int] = {}
        self.problems: list[YamlProblem] = []
        self._loader = loader

    def value(self, node: yaml.Node, place: Place) -> Any:
        """The value of a node; faulty parts come back as ``None`` with a problem noted."""
        self.lines.setdefault(place, node.start_mark.line + 1)
        self._check_tag(node, place)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, place)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, (*place, at)) for at, item in enumerate(node.value)]
        return self._scalar(node, place)

    def _mapping(self, node: yaml.MappingNode, place: Place) -> dict[str, Any]:
        merge_tag = "tag:yaml.org,2002:merge"
        merged = [value for key, value in node.value if key.tag == merge_tag]
        # Merged keys go first: the mapping's own keys then replace their values and lines.
        result = dict(self._merged(merged, place))
        first: dict[str, int] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if key_node.tag == merge_tag:
                continue
            if not isinstance(key_node, yaml.ScalarNode):
                self._note("expected keys that are names, got a list or mapping", place, line)
                continue
            key = str(key_node.value)  # as written: `no:` or `1:` are fine as a model's name
            if key in first:
                text = f"expected the key once, got it again (first on line {first[key]})"
                self._note(text, (*place, key), line)
                continue
            first[key] = line
            self.lines[(*place, key)] = line
            result[key] = self.value(value_node, (*place, key))
        return result

    def _merged(self, nodes: list[yaml.Node], place: Place) -> Iterator[tuple[str, Any]]:
        """What ``<<: *name`` brings in; keys of the mapping itself win."""
        for node in nodes:
            parts = node.value if isinstance(node, yaml.SequenceNode) else [node]
            for part in parts:
                if isinstance(part, yaml.MappingNode):
                    yield from self.value(part, place).items()
                else:
                    line = node.start_mark.line + 1
                    self._note("expected a mapping after '<<'", place, line)

    def _check_tag(self, node: yaml.Node, place: Place) -> None:
        kind = "a mapping" if isinstance(node, yaml.MappingNode) else "a list"
        plain = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")
        if isinstance(node, yaml.CollectionNode) and node.tag not in plain:
            line = node.start_mark.line + 1
            self._note(f"expected {kind} without a tag, got {node.tag}", place, line)

    def _scalar(self, node: yaml.Node, place: Place) -> Any:
        try:
            return self._loader.construct_object(node)
        except (yaml.YAMLError, ValueError, KeyError, OverflowError):
            line = node.start_mark.line + 1
            self._note(f"expected a plain value, got {shown(node.value)}", place, line)
            return None

    def _note(self, text: str, place: Place, line: int) -> None:
        self.problems.append(YamlProblem(text=text, place=place, line=line))
