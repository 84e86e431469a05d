"""What stands between a recipe and a model that can be asked, whatever the questions are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from evaluators.harness.engines.engine_choice import VLLM
from evaluators.harness_spec import HarnessSpec
from evaluators.protocol import EvaluatorError
from evaluators.resident_models.candidate_failures import device_is_lost
from evaluators.resident_models.devices.build_preparation import (
    plan_memory,
    prepare_builds,
    spread_over,
)
from evaluators.resident_models.resident_model import ResidentModel, choose_devices
from evaluators.resident_models.skeleton import ResidentError, Skeleton
from evaluators.resident_models.tokenizer_cache import CachedTokenizer, TokenizerCache
from merging.building.build import build_into
from merging.checkpoints.checkpoint import Checkpoint, CheckpointError
from merging.checkpoints.files.content_hashes import ContentHashes
from merging.gradients.coefficient_gradients import CoefficientGradients
from merging.planning.merge_plan import MergePlan, plan
from spaces.recipes.coefficients import Coefficients
from spaces.recipes.recipe import Merge, Model, Recipe, Source, parameters
from spaces.text.error_text import class_and_last_line


@dataclass(frozen=True, kw_only=True, slots=True)
class Models:
    """The models of a spec, opened by their headers, and where candidates will live.

    Attributes:
        checkpoints: By name.
        devices: One, or the GPUs that a candidate is spread over.
    """

    checkpoints: Mapping[str, Checkpoint]
    devices: tuple[torch.device, ...]

    @classmethod
    def open(cls, spec: HarnessSpec) -> Models:
        """Open them; no weight is read.

        Raises:
            EvaluatorError: With everything that is wrong with models or devices.
        """
        problems: list[str] = []
        checkpoints: dict[str, Checkpoint] = {}
        devices: tuple[torch.device, ...] = ()
        contents = ContentHashes(None if spec.statistics is None else Path(spec.statistics))
        for name, location in spec.models:
            try:
                checkpoints[name] = Checkpoint.open(location, name=name, contents=contents)
            except CheckpointError as error:
                problems += error.problems
        if not spec.models:
            problems.append("models: expected at least one, got none")
        try:
            devices = choose_devices(spec.device, spec.gpus)
        except ResidentError as error:
            problems += error.problems
        if problems:
            raise EvaluatorError(problems)
        return cls(checkpoints=checkpoints, devices=devices)


@dataclass(frozen=True, kw_only=True, slots=True)
class BuiltModel:
    """A model with the weights of a recipe.

    Attributes:
        skeleton: The model.
        desk: Its tokenizer, and what was made with it.
        fingerprint: Of its weights.
        plan: What they were built by.
    """

    skeleton: Skeleton
    desk: CachedTokenizer
    fingerprint: str
    plan: MergePlan


class ModelBuilder:
    """Keeps a model on a worker's devices and fills it with recipes.

    Raises:
        EvaluatorError: If they do not fit into the memory of the GPUs, or the engine not into that
            of the machine.

    Attributes:
        device: The first of the devices, where inputs go.
        notes: The plan of the memory, where there is a GPU.
    """

    def __init__(self, spec: HarnessSpec, models: Models) -> None:
        if spec.threads is not None:
            torch.set_num_threads(spec.threads)
        self._quantise = spec.quantise
        self._checkpoints, self._devices = models.checkpoints, models.devices
        self.device = models.devices[0]
        memory = plan_memory(spec, models.checkpoints, models.devices)
        on_gpu = self.device.type == "cuda"
        if (on_gpu or spec.engine == VLLM) and memory.problems():
            raise EvaluatorError(memory.problems())
        self.notes = tuple(memory.lines()) if on_gpu else ()
        self._resident = ResidentModel(
            device=self.device,
            spread=spread_over(memory, models.devices),
            trust_remote_code=spec.trust_remote_code,
        )
        self._desks = TokenizerCache(spec)
        self._prepared = prepare_builds(
            spec, models.checkpoints, memory=memory, devices=models.devices
        )
        self._kept: tuple[str, BuiltModel] | None = None

    def empty(self, name: str) -> tuple[Skeleton, CachedTokenizer]:
        """The empty model that one of the models would fill, so that what fails, fails now.

        Raises:
            PlanError: If it cannot be built.
            ResidentError: Likewise.
        """
        source = Source(of=Model(name), parameters=parameters(weight=1.0))
        planned = plan(Recipe(root=Merge(method="linear", sources=(source,))), self._checkpoints)
        skeleton, desk = self._place(planned)
        skeleton.targets(planned.jobs)
        return skeleton, desk

    def holds(self, recipe: Recipe) -> bool:
        """Whether ``build`` would find the recipe's weights in place."""
        return self._kept is not None and self._kept[0] == recipe.key

    def build(self, recipe: Recipe) -> BuiltModel:
        """A model with the weights of a recipe; they are in place already if it was kept."""
        known, self._kept = self._kept, None  # should what comes next fail, nothing is certain
        if known is not None and known[0] == recipe.key:
            return known[1]
        del known  # holds no model that has to make room
        planned = plan(recipe, self._checkpoints)
        skeleton, desk = self._place(planned)
        fingerprint = build_into(
            planned,
            self._checkpoints,
            skeleton.targets(planned.jobs),
            statistics=self._prepared.statistics,
            supply=self._prepared.supply,
        )
        skeleton.settle()
        if self._quantise is not None:
            skeleton.quantise(self._quantise)
        for device in self._devices:
            if device.type == "cuda":
                torch.cuda.synchronize(device)
        return BuiltModel(skeleton=skeleton, desk=desk, fingerprint=fingerprint, plan=planned)

    def gradients(self, built: BuiltModel) -> CoefficientGradients:
        """What collects the gradients by the coefficients of the recipe that was built.

        Raises:
            GradientError: If they have none.
        """
        return CoefficientGradients(
            built.plan,
            self._checkpoints,
            built.skeleton.parameters(built.plan.jobs),
            Coefficients(built.plan.recipe),
            statistics=self._prepared.statistics,
            supply=self._prepared.supply,
        )

    def keep(self, recipe: Recipe, built: BuiltModel) -> None:
        """Answering went well: the next ``build`` of this recipe has nothing to do."""
        self._kept = recipe.key, built

    def check_lost(self, error: Exception) -> None:
        """Stop at an error after which the device answers nothing more: it is no recipe's fault.

        Raises:
            EvaluatorError: If it is one.
        """
        if device_is_lost(error):
            raise EvaluatorError(
                [f"device {self.device}: lost: {class_and_last_line(error)}"]
            ) from error

    def free(self) -> None:
        """Give back what a candidate that failed may have left."""
        self._kept = None
        self._resident.free()

    def close(self) -> None:
        """Give back all memory; calling it twice is fine."""
        self._kept = None
        self._resident.close()
        self._desks.clear()

    def _place(self, planned: MergePlan) -> tuple[Skeleton, CachedTokenizer]:
        skeleton = self._resident.skeleton(planned, planned.folder)
        return skeleton, self._desks.of(planned.donor, planned.folder)
