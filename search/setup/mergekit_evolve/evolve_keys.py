"""Reading a config of mergekit-evolve: values by key, and what is to be said of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from runs.config.yaml_document import YamlDocument, YamlProblem

_GENOME = (
    "models", "merge_method", "base_model", "tokenizer_source", "layer_granularity", "normalize",
    "allow_negative_weights", "filters", "smooth",
)  # fmt: skip
_TOP = (
    "genome", "tasks", "limit", "num_fewshot", "shuffle", "random_init", "apply_chat_template",
    "fewshot_as_multiturn",
)  # fmt: skip


@dataclass(kw_only=True, slots=True)
class EvolveKeys:
    """A config of mergekit-evolve on its way to one of ours.

    Attributes:
        source: The file; its top is a mapping.
        problems: What is wrong with it.
        notes: What to say above keys of ours, by dotted key.
        remarks: Sentences for the user.
    """

    source: YamlDocument
    problems: list[YamlProblem] = field(default_factory=list)
    notes: dict[str, list[str]] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    @property
    def top(self) -> Mapping[str, Any]:
        """The keys of the file."""
        found: Mapping[str, Any] = self.source.data
        return found

    @property
    def genome(self) -> Mapping[str, Any]:
        """The keys below ``genome``; none where that is something else."""
        found = self.top.get("genome")
        return found if isinstance(found, Mapping) else {}

    def problem(self, text: str, *place: str | int) -> None:
        """Note what is wrong, and with which key."""
        self.problems.append(YamlProblem(text=text, place=place))

    def note(self, key: str, *lines: str) -> None:
        """Note what is to be said above a key of ours."""
        self.notes.setdefault(key, []).extend(lines)

    def take(self, key: str, kind: type | tuple[type, ...], default: Any, *place: str) -> Any:
        """A value of a key, of its kind; the default where it is missing or wrong."""
        table = self.genome if place else self.top
        value = table.get(key)
        if value is None:
            return default
        right = isinstance(value, kind) and not (isinstance(value, bool) and kind is int)
        if not right:
            words = {bool: "true or false", int: "a whole number", list: "a list", str: "a text"}
            name = words.get(kind if isinstance(kind, type) else kind[0], "another value")
            self.problem(f"expected {name}, got {value!r}", *place, key)
            return default
        return value

    def remark_unknown(self) -> None:
        """Say which keys are passed over, as mergekit-evolve itself does."""
        strange = [key for key in self.top if key not in _TOP]
        strange += [f"genome.{key}" for key in self.genome if key not in _GENOME]
        for key in strange:
            self.remarks.append(f"{key} is not a key of mergekit-evolve; it was left out.")
