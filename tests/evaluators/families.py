"""Small random models of any class of transformers, and what becomes of a search over them."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as CAUSAL
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES as SEEING,
)

from evaluators.resident_models.resident_model import ResidentModel
from evaluators.resident_models.skeleton import ResidentError
from merging.building.build import build_into, write_model
from merging.checkpoints.checkpoint import Checkpoint
from merging.checkpoints.compatibility import check_parents
from merging.checkpoints.weight_places import auto_class
from merging.planning.merge_plan import MergePlan, plan
from spaces.errors import UserError
from spaces.recipes.recipe import Merge, Model, Recipe, Source, parameters
from tests.tiny_configs import tiny_config

CPU = torch.device("cpu")
PAGE = Path(__file__).parents[2] / "docs" / "models.md"
MOST_WEIGHTS = 20_000_000
"""Of a model that is small enough to be tried."""


def every_class() -> list[str]:
    """The model types with a class that gives logits of text: causal, or of text and images."""
    return sorted({*CAUSAL, *SEEING})


class NotTried(Exception):
    """A class that cannot be tried; why."""


def new_model(family: str, seed: int, dtype: str) -> PreTrainedModel:
    """A random model of a family."""
    torch.manual_seed(seed)
    config = tiny_config(family)
    model: PreTrainedModel = auto_class(config).from_config(config, dtype=getattr(torch, dtype))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model.eval()


def save(
    folder: Path, family: str, seed: int, dtype: str = "float32", *, hub: bool = True
) -> Checkpoint:
    """The same in a folder, as the hub has it or as it is in memory."""
    new_model(family, seed, dtype).save_pretrained(folder, save_original_format=hub)
    return Checkpoint.open(str(folder), name=folder.name)


def loaded(folder: Path) -> Any:
    """A fresh load, as users of the folder have it."""
    kind = auto_class(AutoConfig.from_pretrained(folder))
    return kind.from_pretrained(folder, dtype="auto")


def planned(first: float, checkpoints: dict[str, Checkpoint]) -> MergePlan:
    sources = tuple(
        Source(of=Model(name), parameters=parameters(weight=weight))
        for name, weight in (("one", first), ("two", 1 - first))
    )
    return plan(Recipe(root=Merge(method="linear", sources=sources)), checkpoints)


def logits(model: Any) -> torch.Tensor:
    ids = torch.randint(3, 60, (2, 12), generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        return torch.as_tensor(model(input_ids=ids, use_cache=False).logits)


def differing(checkpoints: dict[str, Checkpoint], folder: Path) -> str:
    """Three recipes in one resident model, each against a fresh load of what is built.

    Returns:
        Which gave other logits; empty if none did.
    """
    resident = ResidentModel(device=CPU)
    for number, first in enumerate((0.3, 0.8, 0.5), start=1):
        made = planned(first, checkpoints)
        write_model(made, checkpoints, folder / f"out{number}")
        skeleton = resident.skeleton(made, checkpoints[made.donor].folder)
        build_into(made, checkpoints, skeleton.targets(made.jobs))
        skeleton.settle()
        found, wanted = logits(skeleton.model), logits(_aligned(loaded(folder / f"out{number}")))
        if not torch.equal(found, wanted):
            return f"recipe {number}: {float((found - wanted).abs().max()):.2g}"
    return ""


def _aligned(model: Any) -> Any:
    """The same weights as memory is given out: sums depend on where a file's tensors begin."""
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()
    return model


def outcome(family: str, folder: Path) -> str:
    """What becomes of random models of a family in two dtypes: ``works``, or why not."""
    for dtype in ("float32", "bfloat16"):
        found = _outcome(family, dtype, folder / dtype).replace(f"{folder / dtype}/", "")
        if found != "works":
            return found if dtype == "float32" else f"{found} (in {dtype})"
    return "works"


def _outcome(family: str, dtype: str, folder: Path) -> str:
    try:
        checkpoints = {
            name: _tried(folder / name, family, seed, dtype)
            for seed, name in enumerate(("one", "two"))
        }
        if problems := check_parents(checkpoints, None):
            return f"refused: {problems[0]}"
        wrong = differing(checkpoints, folder)
    except NotTried as error:
        return f"left out: {error}"
    except (UserError, ResidentError) as error:
        return f"refused: {str(error).splitlines()[0]}"
    return f"wrong: {wrong}" if wrong else "works"


def stated() -> dict[str, str]:
    """What the page on models says of each family."""
    rows = [line.strip("|").split("|") for line in _table().splitlines()[2:]]
    return {
        family.strip(): outcome.strip() for outcome, names in rows for family in names.split(",")
    }


def state(outcomes: Mapping[str, str]) -> None:
    """Put what was found into the page on models."""
    kinds = sorted({*outcomes.values()}, key=lambda one: (one != "works", "left" in one, one))
    lines = ["| what becomes of it | model types |", "|---|---|"]
    for kind in kinds:
        names = ", ".join(name for name, found in sorted(outcomes.items()) if found == kind)
        lines.append(f"| {kind} | {names} |")
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(text.replace(_table(), "\n".join(lines)), encoding="utf-8")


def _table() -> str:
    text = PAGE.read_text(encoding="utf-8")
    start = text.index("| what becomes of it |")
    return text[start : text.index("\n\n", start)]


def _tried(folder: Path, family: str, seed: int, dtype: str) -> Checkpoint:
    """A saved model that transformers loads as it was saved and asks with text alone.

    Raises:
        NotTried: If there is none.
    """
    with _left_out("no small config is known"):
        config = tiny_config(family)
        with torch.device("meta"):
            size = auto_class(config).from_config(copy.deepcopy(config)).num_parameters()
        if size > MOST_WEIGHTS:
            raise NotTried("no small config is known")
        model = new_model(family, seed, dtype)
    with _left_out("does not answer to text alone"):
        same = torch.equal(logits(model), logits(model))
    if not same:
        raise NotTried("answers at random")
    with _left_out("transformers does not load what it saves"):
        model.save_pretrained(folder)
        fresh, own = loaded(folder).state_dict(), model.state_dict()
    if not all(torch.equal(one.to(own[name].dtype), own[name]) for name, one in fresh.items()):
        raise NotTried("transformers changes weights as it loads them")
    return Checkpoint.open(str(folder), name=folder.name)


@contextmanager
def _left_out(reason: str) -> Iterator[None]:
    """Whatever a class does that is given an odd config leaves it out."""
    try:
        yield
    except ImportError as error:
        raise NotTried("needs a package that the tests lack") from error
    except Exception as error:
        raise NotTried(reason) from error
