"""Merge plans: a recipe resolved on checkpoints, one job per output tensor, from headers only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from merging.checkpoints.checkpoint import Checkpoint
from merging.checkpoints.compatibility import (
    check_architecture,
    check_parents,
    check_shape,
)
from merging.checkpoints.files.model_layout import ModelLayout, is_head, is_late
from merging.planning.embedding_alignment import EmbeddingAlignment
from merging.planning.expressions import Combine, Expression, Leaf, leaves
from merging.planning.output_config import output_config, with_rows
from merging.planning.tracer import TensorPlace, Tracer
from merging.problems import Problems
from merging.tokenizers.vocabulary_alignment import VocabularyError
from spaces.errors import UserError
from spaces.recipes.recipe import Merge, Model, Recipe, Source, merges

__all__ = [
    "Combine",
    "Expression",
    "Leaf",
    "MergePlan",
    "PlanError",
    "TensorJob",
    "check_parents",
    "plan",
]


class PlanError(UserError, ValueError):
    """A recipe that these checkpoints cannot be merged by.

    Attributes:
        problems: One line each.
    """


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TensorJob:
    """One output tensor.

    Attributes:
        name: As the donor names it.
        shape: Of inputs and output.
        dtype: Of the output.
        expression: How it is made.
    """

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    expression: Expression

    @property
    def size(self) -> int:
        """Bytes of the output."""
        count = 1
        for length in self.shape:
            count *= length
        return count * self.dtype.itemsize


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class MergePlan:
    """Everything a build does, before it does it.

    Attributes:
        recipe: What was planned.
        donor: Name of the model that gives config and tokenizer.
        jobs: One per output tensor: before the layers, layer by layer, after the layers.
        layers: Number of output layers.
        config: ``config.json`` of the output.
        folder: Where its other files come from: the donor's, or one made for it where the
            tokenizer is not the donor's.
    """

    recipe: Recipe
    donor: str
    jobs: tuple[TensorJob, ...]
    layers: int
    config: Mapping[str, Any]
    folder: Path

    @property
    def size(self) -> int:
        """Bytes of all output tensors."""
        return sum(job.size for job in self.jobs)


def plan(recipe: Recipe, checkpoints: Mapping[str, Checkpoint]) -> MergePlan:
    """Resolve a recipe on checkpoints; no weight is read.

    Args:
        recipe: What to merge.
        checkpoints: At least the recipe's models (and its tokenizer's), by name.

    Raises:
        PlanError: With every problem of architecture, depth, layer range, shape, vocabulary,
            missing tensor and missing value.
    """
    used = recipe.needed
    missing = [name for name in used if name not in checkpoints]
    if missing:
        have = ", ".join(checkpoints) or "none"
        raise PlanError([f"model {name}: not among the models given ({have})" for name in missing])
    problems = Problems()
    recipe = _as_it_stands(recipe, checkpoints)
    donor = checkpoints[recipe.donor]
    for name in used:
        check_architecture(donor, checkpoints[name], problems)
    try:
        aligner = EmbeddingAlignment(recipe, checkpoints, problems)
    except VocabularyError as error:
        raise PlanError(error.problems) from error
    tracer = Tracer(recipe, checkpoints, problems, aligner)
    for node in merges(recipe.root):
        tracer.check_depths(node)
    if problems:  # tensors of other architectures or depths would only repeat it
        raise PlanError(problems.lines())
    _check_donor(donor, [checkpoints[name] for name in used], problems)
    layers = tracer.layer_count(recipe.root)
    if layers == 0 and donor.layout.layers:
        raise PlanError(["slices: expected at least one layer in all, got none (empty ranges)"])
    try:
        jobs = tuple(_jobs(recipe, checkpoints, tracer, layers, problems))
    except VocabularyError as error:
        raise PlanError([*problems.lines(), *error.problems]) from error
    if problems:
        raise PlanError(problems.lines())
    origins = [tracer.origin(recipe.root, layer) for layer in range(layers)]
    config = output_config(donor, checkpoints, origins, [job.dtype for job in jobs])
    if aligner.alignment is not None:
        config = aligner.alignment.renumbered(config, donor.name)
        config = with_rows(config, aligner.alignment.count)
    return MergePlan(
        recipe=recipe,
        donor=donor.name,
        jobs=jobs,
        layers=layers,
        config=config,
        folder=aligner.folder(),
    )


def _as_it_stands(recipe: Recipe, checkpoints: Mapping[str, Checkpoint]) -> Recipe:
    """A model that stands alone, without the others where their vocabularies differ from its."""
    if recipe.alone is None or recipe.vocabulary is not None:
        return recipe
    if len({checkpoints[name].rows for name in recipe.models}) == 1:
        return recipe
    source = Source(of=Model(recipe.alone))
    return replace(recipe, root=Merge(method="passthrough", sources=(source,)))


def _check_donor(donor: Checkpoint, used: Sequence[Checkpoint], problems: Problems) -> None:
    """The output has the donor's shape: it must know every tensor the inputs cannot do without."""
    if not donor.tied and donor.layout.head is None:
        problems.add(
            f"model {donor.name}: expected an output head (config.json says tie_word_embeddings: "
            "false), got none in its files"
        )
    for other in used:
        for key, tensor in other.layout.outside.items():
            if key in donor.layout.outside or is_head(key) or not other.layout.is_required(key):
                continue
            problems.add(
                f"model {donor.name}: {tensor} is missing; {other.name} has it, and {donor.name} "
                "gives the output its config",
                group=(donor.name, other.name, "donor"),
            )


def _places(
    recipe: Recipe, donor: ModelLayout, tracer: Tracer, layers: int
) -> Iterator[TensorPlace]:
    late = [key for key in donor.outside if is_late(key)]
    yield from (TensorPlace(None, key) for key in donor.outside if not is_late(key))
    for layer in range(layers):
        for suffix in sorted(tracer.suffixes(recipe.root, layer)):
            yield TensorPlace(layer, suffix)
    yield from (TensorPlace(None, key) for key in late)


def _jobs(
    recipe: Recipe,
    checkpoints: Mapping[str, Checkpoint],
    tracer: Tracer,
    layers: int,
    problems: Problems,
) -> Iterator[TensorJob]:
    donor = checkpoints[recipe.donor]
    for place in _places(recipe, donor.layout, tracer, layers):
        if place.layer is None and is_head(place.key) and donor.tied:
            continue
        expression = tracer.output(place)
        if expression is None:
            continue
        stored = sorted(leaves(expression), key=lambda leaf: leaf.model != donor.name)
        first = stored[0]
        for leaf in stored[1:]:
            got = (leaf.model, leaf.tensor, leaf.info)
            check_shape(place.key, (first.model, first.info), got, problems)
        yield TensorJob(
            name=tracer.name(recipe.root, place),
            shape=first.info.shape,
            dtype=_output_dtype(recipe, stored, checkpoints),
            expression=expression,
        )


def _output_dtype(
    recipe: Recipe, stored: Sequence[Leaf], checkpoints: Mapping[str, Checkpoint]
) -> torch.dtype:
    """The recipe's dtype, or the widest of the inputs'; never wider than the arithmetic."""
    dtypes = [checkpoints[leaf.model].stored_dtype(leaf.tensor) for leaf in stored]
    widest = dtypes[0]
    for dtype in dtypes[1:]:
        widest = torch.promote_types(widest, dtype)
    if not widest.is_floating_point:
        return widest
    if recipe.dtype is not None:
        asked = getattr(torch, recipe.dtype)
        assert isinstance(asked, torch.dtype)
        return asked
    return torch.float32 if widest == torch.float64 else widest
