"""Setting up the workers of a run, and what they share, from its config."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import MofNCompleteColumn

from evaluators.harness_spec import HarnessSpec
from evaluators.protocol import Catalogue, EvaluatorError, EvaluatorFactory
from evaluators.synthetic_evaluator import SyntheticEvaluator, SyntheticSpec
from evaluators.workers.cluster.node_check import NodeCheck
from evaluators.workers.pool import Pool, SerialPool
from merging.building.precompute import Needs
from merging.building.precompute import prepare as compute
from merging.checkpoints.checkpoint import Checkpoint
from merging.kernels.native.native_library import try_warm_up
from merging.tensor_statistics.statistics_cache import StatisticsCache
from runs.config.config_checks import BASE
from runs.config.run_config import RunConfig
from search.inputs.input_error import InputError
from search.monitoring.console import progress_bar
from spaces.search_space.space import Space

WORKER_BYTES = 1_500_000_000
"""Memory of a worker besides its model: libraries, prompts, activations of a small batch."""

STATISTICS = "statistics"
"""Name of the folder, in a run's, of what is computed once of its models."""

LARGE = 20_000_000
"""Elements of a model from which its statistics are computed before the first candidate."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """What workers are set up for.

    Attributes:
        config: As the user gave it, with the command line's values.
        space: What may be drawn.
        checkpoints: The models, opened by their headers.
        catalogue: What can be asked.
        folder: The run's.
        dry_run: Whether candidates are only pretended.
        quantise: How the weights of candidates are quantised; ``None`` leaves them as they are.
    """

    config: RunConfig
    space: Space
    checkpoints: Mapping[str, Checkpoint]
    catalogue: Catalogue
    folder: Path
    dry_run: bool
    quantise: str | None = None

    @property
    def statistics(self) -> Path:
        """Where what is computed once of the models is kept."""
        return self.folder.resolve() / STATISTICS

    def harness_spec(self) -> HarnessSpec:
        """What workers need to know, with what follows from the space and the folder."""
        stacking = self.space.stacking
        return replace(
            self.config.harness_spec(),
            statistics=str(self.statistics),
            quantise=self.quantise,
            methods=self.space.methods,
            trees=bool(self.space.pairwise),
            most_layers=None if stacking is None else stacking.max_layers,
        )


def make_pool(setting: Setting) -> Pool:
    """The workers that a config asks for.

    Raises:
        InputError: If they cannot be set up.
    """
    workers = setting.config.workers

    def with_gpus(gpus: float) -> EvaluatorFactory:
        return evaluator_factory(setting.config, replace(setting.harness_spec(), gpus=gpus))

    try:
        factory = (
            fake_factory(setting.config)
            if setting.dry_run
            else evaluator_factory(setting.config, setting.harness_spec())
        )
        if not workers.ray:
            return SerialPool(factory, timeout=workers.timeout)
        from evaluators.workers.ray_pool import RayPool

        return RayPool(
            factory,
            workers=None if workers.count == "auto" else int(workers.count),
            gpus=None if workers.gpus == "auto" else float(workers.gpus),
            cpus=workers.cpus,
            memory=0 if setting.dry_run else worker_memory(setting.config, setting.checkpoints),
            address=workers.ray_address,
            timeout=workers.timeout,
            retries=workers.retries,
            wait=workers.wait,
            runtime_env=workers.runtime_env,
            inspect=_node_check(setting),
            make_for=None if setting.dry_run else with_gpus,
        )
    except EvaluatorError as error:
        raise InputError(error.problems) from error


def worker_memory(config: RunConfig, checkpoints: Mapping[str, Checkpoint]) -> int:
    """Bytes of main memory that a worker on CPU takes: its model, and what every worker has.

    Parents are mapped from disk and shared by the workers of a machine; they are not counted.
    """
    element = {None: None, "float32": 4}.get(config.output.dtype, 2)
    return WORKER_BYTES + max(
        sum(
            info.numel * element if element else info.end - info.start
            for info in checkpoint.tensors.values()
        )
        for checkpoint in checkpoints.values()
    )


def fake_factory(config: RunConfig) -> Callable[[], SyntheticEvaluator]:
    """Makes evaluators that only pretend."""
    tasks = tuple((task.name, task.weight) for task in config.tasks)
    floors = tuple((task.name, found) for task in config.tasks if (found := task.kept_above))
    spec = SyntheticSpec(parents=tuple(config.models), tasks=tasks, floors=floors)
    return partial(SyntheticEvaluator, spec)


def prepare_statistics(setting: Setting, console: Console) -> None:
    """Compute what the search's methods have to know of the models, if the models are large.

    Of small ones the first candidates do it in passing. Workers that see the run's folder find it
    there; without it each of them would compute it during its first candidates.
    """
    needs = Needs.of(setting.space.methods, base=setting.config.base is not None)
    models = dict(setting.checkpoints)
    largest = max(sum(info.numel for info in one.tensors.values()) for one in models.values())
    if setting.dry_run or not needs or largest < LARGE:
        return
    base = models.pop(BASE, None)
    try_warm_up()  # several times as fast with the library
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # tensors are worked on side by side, each by one thread
    text = "Statistics of the models (once)"
    try:
        with progress_bar(console, text, MofNCompleteColumn()) as progress:
            compute(
                tuple(models.values()),
                base,
                StatisticsCache(setting.statistics),
                needs=needs,
                threads=threads,
                progress=progress,
            )
    finally:
        torch.set_num_threads(threads)


def _node_check(setting: Setting) -> NodeCheck:
    """What every node of a cluster has to have."""
    return NodeCheck(
        spec=None if setting.dry_run else setting.harness_spec(),
        inputs={}
        if setting.dry_run
        else {name: one.input_hash for name, one in setting.checkpoints.items()},
        catalogue=setting.catalogue,
        evaluator=setting.config.evaluator,
    )


def evaluator_factory(config: RunConfig, spec: HarnessSpec) -> EvaluatorFactory:
    """Makes the evaluators of a config: lm-eval's tasks, or the user's own."""
    if config.evaluator is not None:
        from evaluators.custom_evaluator import OwnFactory

        return OwnFactory(reference=config.evaluator, spec=spec)
    from evaluators.harness.harness_evaluator import HarnessEvaluator

    return partial(HarnessEvaluator, spec)
