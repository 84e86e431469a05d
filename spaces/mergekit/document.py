"""One document of a mergekit file: a merge, its output dtype and its tokenizer."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Protocol

from spaces.catalogue.method_catalogue import METHODS
from spaces.mergekit.merge_section import MergeSection, Notes, read_merge
from spaces.mergekit.plain_values import reference
from spaces.mergekit.tokenizer_section import read_vocabulary, source_of
from spaces.mergekit.writer import BLOCK, METHOD_KEY
from spaces.recipes import chat_template as chat
from spaces.recipes.recipe import DTYPES, Merge, Model, Recipe
from spaces.recipes.vocabulary import Vocabulary

_KEYS = frozenset(
    "name merge_method base_model models slices modules parameters dtype out_dtype tokenizer "
    f"tokenizer_source chat_template {BLOCK} {METHOD_KEY}".split()
)


class Finder(Protocol):
    """Finds what a reference stands for: a model, or another document."""

    def __call__(self, location: str, notes: Notes, key: str, /) -> Model | MergekitDocument | None:
        """``None`` if it stands for nothing; the problem is then noted under the key."""
        ...


class MergekitDocument:
    """One document.

    Args:
        data: Its keys and values.
        where: Start of every message about it.
        node: Finds what a reference stands for.
        declared: Names of models that the file may refer to besides those that are merged.
        problems: Where problems are noted, one line each.
        ignored: Where keys are noted that change nothing.
    """

    def __init__(
        self,
        data: Mapping[Any, Any],
        *,
        where: str,
        node: Finder,
        declared: Collection[str],
        problems: list[str],
        ignored: list[str],
    ) -> None:
        self.data = data
        self.notes = Notes(where, problems, ignored)
        self._find = node
        self._declared = declared
        self._state = "new"  # then "open" while it is read, then "done"
        self._merge: Merge | None = None
        self._base: Model | MergekitDocument | None = (
            None  # as the document has it, whatever its use
        )

    def merge(self) -> Merge | None:
        """The merge of this document; ``None`` where it, or an input of it, has problems."""
        if self._state == "open":
            self.notes.problem(
                "", "expected merges that do not need each other in a circle, got a circle"
            )
        elif self._state == "new":
            self._state = "open"
            self._merge = self._read()
            self._state = "done"
        return self._merge

    def dtype(self) -> str | None:
        """Output dtype; ``None`` keeps that of the inputs."""
        for key in ("out_dtype", "dtype"):
            value = self.data.get(key)
            if value is not None:
                found = str(value).removeprefix("torch.")
                if found not in DTYPES:
                    self.notes.problem(key, f"expected one of {', '.join(DTYPES)}, got {value!r}")
                return found if found in DTYPES else None
        return None

    def tokenizer(self) -> str | None:
        """The model that gives config and tokenizer; ``None`` for the recipe's default."""
        if self._merge is None:
            return None
        donor = self.donor()
        return donor if donor != Recipe(root=self._merge).donor else None

    def vocabulary(self) -> Vocabulary | None:
        """What the document says of the output's vocabulary."""
        return read_vocabulary(self.data, notes=self.notes, model_of=self._model_of)

    def chat_template(self) -> str | None:
        """The chat template, as the document has it; ``None`` keeps the tokenizer's."""
        found = self.data.get("chat_template")
        return None if found in (None, "") else str(found)

    def _model_of(self, source: Any, key: str) -> str | None:
        """Name of a model of this merge, given as ``base`` or by its location."""
        if source == "base":
            return self.donor()
        location = self.notes.take(key, reference, source)
        node = self._find(location, self.notes, key) if location is not None else None
        name = self._given(node)
        if name is None or self._merge is None:
            return None
        if name not in Recipe(root=self._merge).models and name not in self._declared:
            self.notes.problem(key, f"expected a model of this merge, got {source!r}")
            return None
        return name

    def donor(self) -> str | None:
        """The model whose config and tokenizer mergekit gives this merge."""
        given = self._given(self._base)
        return given if given or self._merge is None else Recipe(root=self._merge).donor

    def note_inner(self, final: MergekitDocument) -> None:
        """Note what this document says that has no effect where its result is merged further."""
        key, source = source_of(self.data, self.notes)
        if source is not None and source != source_of(final.data, self.notes)[1]:
            self.notes.ignore(key, "the final document decides on the tokenizer")
        if self.chat_template() not in (None, final.chat_template()):
            self.notes.ignore("chat_template", "the final document decides on the tokenizer")
        if (dtype := self.dtype()) not in (None, "float32"):
            self.notes.ignore("dtype", f"{dtype}: intermediate results stay in float32")

    def _given(self, node: Model | MergekitDocument | None) -> str | None:
        return node.name if isinstance(node, Model) else node.donor() if node is not None else None

    def _read(self) -> Merge | None:
        if "experts" in self.data:
            text = "expected a merge, got a file for mergekit-moe, which makes no merge of models"
            self.notes.problem("experts", text)
            return None
        for unknown in self.data.keys() - _KEYS:
            self.notes.ignore(str(unknown), "not a key of mergekit")
        if (template := self.chat_template()) is not None and (fault := chat.fault(template)):
            self.notes.problem("chat_template", fault)
        named = self.data.get("merge_method", self.data.get(METHOD_KEY))
        method = METHODS.get(str(named))
        if method is None:
            got = "none" if named is None else repr(named)
            self.notes.problem("merge_method", f"expected one of {', '.join(METHODS)}, got {got}")
        self.dtype()
        source_of(self.data, self.notes)
        base = self.data.get("base_model")
        location = None if base is None else self.notes.take("base_model", reference, base)
        if location is not None:
            self._base = self._find(location, self.notes, "base_model")
        layout = self._layout(location)
        if layout is None or method is None:
            return None
        return read_merge(layout, method, notes=self.notes, node=self._node)

    def _node(self, location: str, key: str) -> Model | Merge | None:
        """A model, or the merge of another document."""
        found = self._find(location, self.notes, key)
        return found.merge() if isinstance(found, MergekitDocument) else found

    def _layout(self, base: str | None) -> MergeSection | None:
        """Which of models, slices and modules there is."""
        kinds = [key for key in ("models", "slices", "modules") if self.data.get(key)]
        if len(kinds) != 1:
            got = " and ".join(kinds) or "none"
            self.notes.problem("", f"expected exactly one of models, slices and modules, got {got}")
            return None
        tables: tuple[tuple[str, Any], ...] = (("parameters", self.data.get("parameters")),)
        holder, prefix = self.data, ""
        if kinds == ["modules"]:
            modules = self.data["modules"]
            if not isinstance(modules, Mapping) or len(modules) != 1:
                self.notes.problem("modules", "expected one module (not supported yet: several)")
                return None
            ((name, holder),) = modules.items()
            prefix = f"modules.{name}"
            if not isinstance(holder, Mapping) or bool(holder.get("models")) == bool(
                holder.get("slices")
            ):
                self.notes.problem(prefix, "expected either models or slices, got both or none")
                return None
            prefix += "."
            tables = ((f"{prefix}parameters", holder.get("parameters")), *tables)
        kind = "models" if holder.get("models") else "slices"
        entries = holder[kind]
        if not isinstance(entries, list) or not all(isinstance(e, Mapping) for e in entries):
            text = f"expected a list of keys and values, got {entries!r}"
            self.notes.problem(f"{prefix}{kind}", text)
            return None
        return MergeSection(key=f"{prefix}{kind}", entries=entries, tables=tables, base=base)
