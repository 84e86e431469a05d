"""Rows of embeddings and heads brought together while a recipe is resolved."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from merging.checkpoints.checkpoint import Checkpoint
from merging.checkpoints.compatibility import differ_by_padding
from merging.checkpoints.embedding_rows import EmbeddingRows
from merging.checkpoints.files.companion_files import (
    CODE,
    GENERATION,
    OTHERS,
    TOKENIZER,
    copy_files,
)
from merging.checkpoints.files.model_layout import ModelLayout, is_head_part
from merging.planning.expressions import Expression, Leaf
from merging.problems import Problems
from merging.tokenizers import chat_template_files
from merging.tokenizers.vocabulary_alignment import VocabularyAlignment
from spaces.recipes.recipe import Recipe


class EmbeddingAlignment:
    """Replaces stored embeddings and heads by views with the rows of the output.

    Attributes:
        alignment: For recipes that say whose vocabulary the output gets; else only padding may
            differ, and the donor's number of rows is kept.
    """

    def __init__(
        self, recipe: Recipe, checkpoints: Mapping[str, Checkpoint], problems: Problems
    ) -> None:
        """Compare the vocabularies; tokenizers are only loaded if the recipe asks for one.

        Raises:
            VocabularyError: If they cannot be brought together.
        """
        self._checkpoints = checkpoints
        self._problems = problems
        self._donor = checkpoints[recipe.donor]
        self._root = recipe.root
        self._template = None if recipe.chat_template is None else chat_template_files.chosen(
            recipe.chat_template, [checkpoints[name].tokenizer_folder for name in recipe.models]
        )  # fmt: skip
        self.alignment: VocabularyAlignment | None = None
        if recipe.vocabulary is not None:
            models = [f"{name} {checkpoints[name].location}" for name in recipe.needed]
            key = ("alignment", recipe.vocabulary, recipe.donor, *models)
            self.alignment = self._donor.kept(key, lambda: VocabularyAlignment(recipe, checkpoints))
        self._plain = {
            name
            for name in recipe.models
            if self.alignment is None and checkpoints[name].rows == self._donor.rows
        }

    def concerns(self, key: str) -> bool:
        """Whether a tensor outside the layers has a row per token."""
        layouts = [checkpoint.layout for checkpoint in self._checkpoints.values()]
        return key in {layout.embedding for layout in layouts} or is_head_part(key)

    def align(
        self, operands: Sequence[Expression], *, lender: str | None, inner: bool
    ) -> list[Expression]:
        """The same operands of a merge, with the output's rows.

        Args:
            operands: Inputs and base, each once.
            lender: The model that gives rows to those that lack a token.
            inner: Whether the merge is itself an input of another.

        Raises:
            VocabularyError: If a rule of the recipe's cannot be followed here.
        """
        stored = [one for one in operands if isinstance(one, Leaf)]
        models = [leaf.model for leaf in stored]
        if self.alignment is None:
            return [self._padded(one) if isinstance(one, Leaf) else one for one in operands]
        self._check_tree(self.alignment, models, inner=inner, mixed=len(stored) < len(operands))
        rows = self.alignment.rows(models, lender)
        if len({leaf.info.shape[1:] for leaf in stored}) > 1:
            return list(operands)  # the shapes are compared, and reported, later
        sources = {leaf.model: (self._checkpoints[leaf.model], leaf.tensor) for leaf in stored}
        return [
            self._view(one, rows[one.model], sources) if isinstance(one, Leaf) else one
            for one in operands
        ]

    def _check_tree(
        self, alignment: VocabularyAlignment, models: Sequence[str], *, inner: bool, mixed: bool
    ) -> None:
        """In a tree each merge must know all tokens: no row can be lent from one to another."""
        groups = [[model] for model in models] if mixed else [list(models)] if inner else []
        for group in groups:
            if lacking := alignment.lacking(group):
                self._problems.add(
                    f"vocabulary: expected a tree in which {' and '.join(group)} know all "
                    f"tokens of the output, got {len(lacking)} they lack (first {lacking[0]!r}); "
                    "merge all models at once instead",
                    group=("vocabulary", *group),
                )

    def _padded(self, leaf: Leaf) -> Leaf:
        """The donor's number of rows for a model whose tokenizer is the same."""
        rows, own = self._donor.rows, leaf.info.shape[0]
        if leaf.model in self._plain or rows is None or rows == own:
            return leaf
        if not differ_by_padding(self._donor, self._checkpoints[leaf.model]):
            return leaf
        donated = self._counterpart(leaf)
        if donated is None or donated.info.shape[1:] != leaf.info.shape[1:]:
            return leaf
        kept = torch.arange(min(rows, own))
        copies = {leaf.model: (kept, kept)}
        if rows > own:  # rows that no token uses: as in the donor, so that nothing changes there
            more = torch.arange(own, rows)
            copies[donated.model] = (more, more)
        sources = {one.model: (self._checkpoints[one.model], one.tensor) for one in (leaf, donated)}
        return self._view(leaf, EmbeddingRows(count=rows, copies=copies, filled=rows), sources)

    def _counterpart(self, leaf: Leaf) -> Leaf | None:
        """The donor's tensor in the same place."""
        layout, donor = self._checkpoints[leaf.model].layout, self._donor
        key = next((key for key, name in layout.outside.items() if name == leaf.tensor), "")
        name = donor.layout.outside.get(key) or _embedding(donor.layout)
        return None if name is None else Leaf(
            model=donor.name, tensor=name, info=donor.tensors[name]
        )  # fmt: skip

    def _view(
        self, leaf: Leaf, rows: EmbeddingRows, sources: Mapping[str, tuple[Checkpoint, str]]
    ) -> Leaf:
        view, info = self._checkpoints[leaf.model].view(leaf.tensor, rows, sources)
        return Leaf(model=leaf.model, tensor=view, info=info)

    def folder(self) -> Path:
        """Where all files of the output but config and weights come from."""
        donor, alignment, template = self._donor, self.alignment, self._template
        if alignment is None and template is None and donor.tokenizer_folder == donor.folder:
            return donor.folder

        def make() -> tempfile.TemporaryDirectory[str]:
            made = _folder(donor, alignment, self._checkpoints)
            if template is not None:
                chat_template_files.put(Path(made.name), template)
            return made

        kept = donor.kept(("folder", id(alignment), template), make)
        return Path(kept.name)


def _folder(
    donor: Checkpoint, alignment: VocabularyAlignment | None, checkpoints: Mapping[str, Checkpoint]
) -> tempfile.TemporaryDirectory[str]:
    """The donor's files with another tokenizer; removed with the checkpoint it is kept by."""
    made = tempfile.TemporaryDirectory(prefix="merge-search-")
    folder = Path(made.name)
    copy_files(donor.folder, folder, ("config.json", *OTHERS, *CODE))
    if alignment is None:
        copy_files(donor.tokenizer_folder, folder, TOKENIZER)
        return made
    if alignment.changed:
        alignment.tokenizer.save_pretrained(folder)
    else:
        copy_files(checkpoints[alignment.giver].tokenizer_folder, folder, TOKENIZER)
    for name, numbered in ((GENERATION, alignment.stopping), ("config.json", alignment.renumbered)):
        file = folder / name
        if file.is_file():
            found = json.loads(file.read_text(encoding="utf-8"))
            text = json.dumps(numbered(found, donor.name), indent=2)
            file.write_text(text + "\n", encoding="utf-8")
    return made


def _embedding(layout: ModelLayout) -> str | None:
    return None if layout.embedding is None else layout.outside[layout.embedding]
