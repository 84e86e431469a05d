"""mergekit YAML as recipes: every problem of a file at once, with its document and key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from spaces.mergekit.document import MergekitDocument
from spaces.mergekit.merge_section import Notes
from spaces.mergekit.plain_values import path_of, short_name
from spaces.mergekit.vision_documents import parted
from spaces.mergekit.writer import BLOCK, OWN
from spaces.recipes.recipe import Merge, Model, Recipe, RecipeError, check_name
from spaces.recipes.vision import Vision
from spaces.text.plain_yaml import documents, fault


@dataclass(frozen=True, kw_only=True, slots=True)
class Document:
    """What a recipe file holds.

    Attributes:
        recipe: The recipe.
        locations: Path or hub id of every model in it, as the file has it.
        meta: What the ``merge_search`` block holds besides the recipe's own facts.
        key: Key of the recipe when the file was written; another than ``recipe.key`` if the file
            was changed since, ``None`` where the file is not ours.
        ignored: Keys of the file that change nothing, one line each.
    """

    recipe: Recipe
    locations: Mapping[str, str]
    meta: Mapping[str, Any] = field(default_factory=dict)
    key: str | None = None
    ignored: tuple[str, ...] = ()


def from_yaml(text: str, *, name: str = "recipe.yaml") -> Document:
    """Read what ``to_yaml`` wrote, or any mergekit file of the methods there are.

    Args:
        text: The file's content: one merge, or several that refer to each other by name.
        name: The file's name, for messages.

    Raises:
        RecipeError: With every problem of the file, one line each: file, document, key, what was
            expected and what is there.
    """
    file = _File(_load(text, name), name)
    result = file.read()
    if result is None:
        raise RecipeError("\n".join(dict.fromkeys(file.problems)))
    return result


class _MergekitLoader(yaml.SafeLoader):
    """YAML without the silent loss of a key that is there twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if isinstance(key, yaml.ScalarNode) and key.value != "<<":
                if key.value in seen:
                    text = f"key {key.value!r} is there twice"
                    raise yaml.constructor.ConstructorError(None, None, text, key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


def _load(text: str, name: str) -> list[Any]:
    """The documents of a file that are not empty."""
    try:
        found = documents(text, _MergekitLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f"line {mark.line + 1}: " if mark is not None else ""
        raise RecipeError(f"{name}: {line}{fault(error)}") from error
    except yaml.YAMLError as error:
        raise RecipeError(f"{name}: {fault(error)}") from error
    found = [document for document in found if document is not None]
    if not found:
        raise RecipeError(f"{name}: expected a merge, got an empty file")
    return found


class _File:
    """All documents of a file, and what was found wrong with them."""

    def __init__(self, documents: list[Any], name: str) -> None:
        self.problems: list[str] = []
        self._ignored: list[str] = []
        self._name = name
        self._names: dict[str, str] = {}  # short name by location
        self._declared: set[str] = set()  # short names of our own facts
        self._used: set[str] = set()  # titles that another document refers to
        self._titled: dict[str, MergekitDocument] = {}
        self._pages: list[MergekitDocument] = []
        for number, data in enumerate(documents, start=1):
            self._add(number, data, several=len(documents) > 1)

    def _add(self, number: int, data: Any, *, several: bool) -> None:
        title = data.get("name") if isinstance(data, Mapping) else None
        label = f" ({title})" if title is not None else ""
        where = f"{self._name}: document {number}{label}: " if several else f"{self._name}: "
        page = MergekitDocument(
            data if isinstance(data, Mapping) else {},
            where=where,
            node=self._node,
            declared=self._declared,
            problems=self.problems,
            ignored=self._ignored,
        )
        self._pages.append(page)
        if not isinstance(data, Mapping):
            page.notes.problem("", f"expected keys and values, got {data!r}")
        elif title is None:
            return
        elif not isinstance(title, str) or not title or title in self._titled:
            page.notes.problem("name", f"expected a name of its own, got {title!r}")
        else:
            self._titled[title] = page

    def read(self) -> Document | None:
        """The recipe of the file; ``None`` where problems were found."""
        block = self._block()
        for page in self._pages:
            page.merge()
        final = self._final()
        root = final.merge() if final is not None else None
        if final is None or root is None or self.problems:
            return None
        for page in self._pages:
            if page is not final:
                page.note_inner(final)
        recipe = self._recipe(final, root, block)
        if recipe is None or self.problems:
            return None
        used = recipe.needed
        return Document(
            recipe=recipe,
            locations={name: place for place, name in self._names.items() if name in used},
            meta={key: value for key, value in block.items() if key not in OWN},
            key=block.get("key"),
            ignored=tuple(self._ignored),
        )

    def _recipe(
        self, final: MergekitDocument, root: Merge, block: Mapping[str, Any]
    ) -> Recipe | None:
        tokenizer = block.get("tokenizer")
        if tokenizer is None and "key" not in block:  # ours only repeats the default there
            tokenizer = final.tokenizer()
        dtype, vocabulary = final.dtype(), final.vocabulary()
        if tokenizer is not None and tokenizer not in self._names.values():
            final.notes.problem(
                f"{BLOCK}.tokenizer", f"expected one of the models, got {tokenizer!r}"
            )
            return None
        try:
            vision = Vision.from_dict(block["vision"]) if "vision" in block else None
            return Recipe(
                root=root if vision is None else parted(root, vision),
                vision=vision,
                dtype=None if block.get("keep_dtype") is True else dtype,
                seed=block.get("seed", 0),
                tokenizer=tokenizer,
                vocabulary=vocabulary,
                chat_template=final.chat_template(),
            )
        except (RecipeError, TypeError, KeyError) as error:
            final.notes.problem(BLOCK, str(error))
            return None

    def _final(self) -> MergekitDocument | None:
        """The document that is the result: the one without a name, or that no other one uses."""
        nameless = [page for page in self._pages if page not in self._titled.values()]
        for page in nameless[1:]:
            page.notes.problem("name", "expected a name, since another document has none either")
        if nameless:
            return nameless[0]
        unused = [page for title, page in self._titled.items() if title not in self._used]
        if len(unused) == 1:
            return unused[0]
        self.problems.append(
            f"{self._name}: expected one document without a name (the result), got none"
        )
        return None

    def _block(self) -> Mapping[str, Any]:
        """Our own facts, wherever they are; short names are taken over from them."""
        page = next((page for page in self._pages if BLOCK in page.data), None)
        if page is None:
            return {}
        block = page.data[BLOCK]
        models = block.get("models", {}) if isinstance(block, Mapping) else None
        if not isinstance(block, Mapping) or not isinstance(models, Mapping):
            page.notes.problem(
                BLOCK, f"expected keys and values, and models likewise, got {block!r}"
            )
            return {}
        for name, place in models.items():
            try:
                check_name(str(name))
            except RecipeError as error:
                page.notes.problem(f"{BLOCK}.models", str(error))
                continue
            if not isinstance(place, str) or place in self._names:
                text = f"expected a location of its own, got {place!r}"
                page.notes.problem(f"{BLOCK}.models.{name}", text)
            else:
                self._names[place] = str(name)
                self._declared.add(str(name))
        return block

    def _node(self, location: str, notes: Notes, key: str) -> Model | MergekitDocument | None:
        """What a reference in a document stands for: another document's merge, or a model."""
        title = path_of(location)
        if title not in self._titled:
            return self._model(location)
        if title != location:
            text = f"expected no revision or adapter on the merge {title!r}, got {location!r}"
            notes.problem(key, f"{text} (put it on that merge's inputs)")
            return None
        self._used.add(title)
        return self._titled[title]

    def _model(self, location: str) -> Model:
        """The model at a location, with a short name of its own."""
        if location not in self._names:
            stem = name = short_name(location)
            number = 2
            while name in self._names.values():
                name, number = f"{stem}-{number}", number + 1
            self._names[location] = name
        return Model(self._names[location])
