"""What a config asks its models: its tasks, and what they need of the models' tokenizers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from evaluators.harness.engines.engine_choice import (
    CONTINUOUS,
    STATIC,
    VLLM,
    engine_problems,
    vllm_versions,
)
from evaluators.harness.tasks.known_benchmarks import unconfirmed
from evaluators.harness.tasks.task_facts import Survey, TaskFacts
from evaluators.harness_spec import MOST_KEYS
from evaluators.protocol import Catalogue, EvaluatorError
from merging.checkpoints.checkpoint import Checkpoint
from runs.config.config_checks import BASE
from runs.config.run_config import RunConfig
from runs.records.question_split import held_out_whole
from search.engine.processes.worker_setup import evaluator_factory, fake_factory
from search.inputs.input_error import InputError


def test_set_problems(config: RunConfig, survey: Survey) -> list[str]:
    """Well-known test sets that the search would be led by, if nobody has confirmed that."""
    if config.search.allow_test_sets or not survey.tasks:  # a dry run looks at none
        return []
    searched = {
        task.name for task in survey.catalogue.tasks if not held_out_whole(task, config.held_out)
    }
    return unconfirmed(
        (task.name, task.known, task.split)
        for task in survey.tasks
        if task.known is not None and task.name in searched
    )


def survey_of(config: RunConfig, *, dry_run: bool) -> Survey:
    """The tasks of a config and their questions.

    Raises:
        EvaluatorError: With everything that is wrong with them.
    """
    if dry_run:
        fake = fake_factory(config)()
        return Survey(catalogue=fake.catalogue(), texts=fake.question_texts)
    if config.evaluator is not None:
        return _own_survey(config, config.evaluator)
    from evaluators.harness.lm_eval_adapter import survey

    return survey(config.harness_spec())


def template_problems(config: RunConfig, checkpoints: Mapping[str, Checkpoint]) -> list[str]:
    """Whether tokenizers that prompts are made with have the chat template that is asked for.

    And the variables that it is given, and what ends thoughts.
    """
    spec = config.harness_spec()
    asked = spec.apply_chat_template is not False or spec.think_end_token is not None
    if not asked or config.evaluator is not None:
        return []
    from evaluators.resident_models.skeleton import ResidentError
    from evaluators.resident_models.tokenizer_cache import TokenizerCache

    desks = TokenizerCache(spec)
    donor = config.output.tokenizer or (BASE if config.base is not None else None)
    problems: list[str] = []
    for name in checkpoints if donor is None else [donor]:
        try:
            desks.of(name, checkpoints[name].tokenizer_folder)
        except ResidentError as error:
            problems += error.problems
    return problems


def length_problems(
    config: RunConfig, checkpoints: Mapping[str, Checkpoint], *, place: str = "harness.gen_kwargs"
) -> list[str]:
    """Models that do not take answers as long as the config allows, one line each.

    Args:
        config: Its cap on answers; without one nothing is looked at.
        checkpoints: The models.
        place: What sets the cap, as the user knows it.
    """
    harness = config.harness
    given = (harness.gen_kwargs[key] for key in MOST_KEYS if key in harness.gen_kwargs)
    cap = next(map(int, given), None)
    if cap is None or config.evaluator is not None:
        return []
    from evaluators.resident_models.devices.build_preparation import context_length

    thoughts = harness.max_think_toks or 0
    beside = f" and {thoughts} tokens of thoughts (harness.max_think_toks)" if thoughts else ""
    try:
        lengths = {
            name: harness.max_length or context_length(one, trust=harness.trust_remote_code)
            for name, one in checkpoints.items()
        }
    except EvaluatorError as error:  # a model that transformers does not know
        return list(error.problems)
    return [
        f"{place}: expected room for a prompt in the {length} tokens that model {name} takes, "
        f"got answers of {cap}{beside}"
        for name, length in lengths.items()
        if length is not None and cap + thoughts >= length
    ]


def with_engine(
    config: RunConfig, checkpoints: Mapping[str, Checkpoint], catalogue: Catalogue
) -> tuple[RunConfig, tuple[str, ...]]:
    """The config with the engine that the run will have, and what the user should know of it.

    Raises:
        InputError: If the engine that is asked for cannot run the models.
    """
    wanted = config.harness.engine
    if wanted == STATIC:
        return config, ()
    if config.evaluator is not None:
        return config.replaced({"harness.engine": STATIC}), ()
    if wanted != "auto":
        if problems := _engine_problems(wanted, config, checkpoints):
            raise InputError(problems)
        return config, ()
    written = any(task.written for task in catalogue.tasks)
    chosen, why = STATIC, ""
    for engine in (VLLM, CONTINUOUS) if written and vllm_versions() else (CONTINUOUS,):
        missing: Sequence[str] = _engine_problems(engine, config, checkpoints)
        if engine == VLLM and not missing:
            missing = _room_problems(config, checkpoints)
        if not missing:
            chosen = engine
            break
        why = why or f" ({missing[0]})"
    note = f"harness.engine: auto is {chosen} here{why}"
    return config.replaced({"harness.engine": chosen}), (note,)


def _engine_problems(
    engine: str, config: RunConfig, checkpoints: Mapping[str, Checkpoint]
) -> list[str]:
    configs = {name: one.config for name, one in checkpoints.items()}
    spec = config.harness_spec()
    return engine_problems(engine, configs, max_length=spec.max_length, gpus=spec.gpus)


def _room_problems(config: RunConfig, checkpoints: Mapping[str, Checkpoint]) -> Sequence[str]:
    """Why vLLM has no room on a machine like this one."""
    from evaluators.resident_models.devices.build_preparation import plan_memory
    from evaluators.resident_models.resident_model import choose_devices
    from evaluators.resident_models.skeleton import ResidentError

    spec = config.replaced({"harness.engine": VLLM}).harness_spec()
    try:
        return plan_memory(spec, checkpoints, choose_devices(spec.device, spec.gpus)).problems()
    except ResidentError as error:  # the GPUs are elsewhere
        return error.problems


def _own_survey(config: RunConfig, evaluator: str) -> Survey:
    """The questions of a user's own evaluator; it loads no model for them."""
    from evaluators.custom_evaluator import ModelEvaluator  # brings torch

    made = evaluator_factory(config, config.harness_spec())()
    try:
        catalogue = made.catalogue()
    finally:
        made.close()
    return Survey(
        catalogue=catalogue,
        texts=made.question_texts if isinstance(made, ModelEvaluator) else dict,
        tasks=tuple(
            TaskFacts(
                name=task.name, kind="own", dataset=evaluator, split="", metrics=(task.metric,),
                shots=0, known=None,
            )
            for task in catalogue.tasks
        ),
    )  # fmt: skip
