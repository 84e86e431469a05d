"""A commented config for given models and tasks, from what is found in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from evaluators.harness.tasks.task_facts import Survey
from evaluators.protocol import Catalogue, EvaluatorError
from merging.checkpoints.checkpoint import Checkpoint, CheckpointError
from runs.config.config_checks import BASE, UNION
from runs.config.run_config import ConfigError, RunConfig, open_inputs
from runs.export.card_metadata import declared_base
from runs.records.question_split import divide, held_out_problems
from search.inputs.input_error import InputError
from search.preflight.model_facts import ModelFacts, differences
from search.preflight.preflight_result import gigabytes
from search.setup.commented_yaml import CommentedYaml, located
from search.setup.config_request import NamedRequest

SHARES = (0.3, 0.4, 0.5, 0.6)
"""Shares of questions to hold out, the first that leaves enough of every task."""


def drafted(asked: NamedRequest, out: Path) -> tuple[CommentedYaml, list[str]]:
    """Look at models and tasks, and write down what was found.

    Returns:
        The draft, and sentences for the user.

    Raises:
        InputError: With everything that is wrong with models and tasks.
    """
    wanted, models = asked.wanted, asked.models
    remarks: list[str] = []
    base = wanted.base if wanted.base is not None else _declared_base(models, remarks)
    plain: dict[str, Any] = {
        "models": dict(models),
        "tasks": [{"name": name} for name in asked.tasks],
    }
    plain |= {"base": base} if base is not None else {}
    plain |= {"include_path": list(asked.folders)} if asked.folders else {}
    budget = {"hours": wanted.hours, "trials": wanted.trials}
    plain |= {"search": {key: value for key, value in budget.items() if value is not None}}
    config, checkpoints, survey = _inspected(plain, remarks)
    facts = {name: ModelFacts.of(one) for name, one in checkpoints.items()}
    remarks += [f"{line[0].upper()}{line[1:]}." for line in differences(facts)]
    return _draft(asked, config, facts, survey, out=out, remarks=remarks), remarks


def _declared_base(models: Mapping[str, str], remarks: list[str]) -> str | None:
    """The base that the models' cards name, if all that name one name the same."""
    said: dict[str, str] = {}
    for name, location in models.items():
        try:
            folder = Checkpoint.open(location, name=name).folder
        except CheckpointError:
            return None  # reported when all are opened
        declared = declared_base(folder)
        if declared is not None:
            said[name] = declared
    if len(set(said.values())) != 1:
        if not said:
            remarks.append(
                "No base is given, and the models' cards name none: methods that need one "
                "(task_arithmetic, ties, dare) are left out. Give it with --base."
            )
        else:
            named = ", ".join(f"{name}: {base}" for name, base in said.items())
            remarks.append(f"The models' cards name different bases ({named}); none is used.")
        return None
    (base,) = set(said.values())
    try:
        Checkpoint.open(base, name=BASE)
    except CheckpointError:
        remarks.append(
            f"The models' cards name the base {base}, which is not on this machine; download it "
            "and give it with --base."
        )
        return None
    remarks.append(f"The base is {base}, as the models' cards say.")
    return base


def _inspected(
    values: dict[str, Any], remarks: list[str]
) -> tuple[RunConfig, dict[str, Checkpoint], Survey]:
    """Open models and tasks; ask for a union of vocabularies where only that is in the way."""
    from evaluators.harness.lm_eval_adapter import survey

    problems: list[str] = []
    checkpoints: dict[str, Checkpoint] = {}
    config = _config(values)
    try:
        checkpoints = open_inputs(config)
    except ConfigError as error:
        joint = _config({**values, "output": {"vocabulary": UNION}})
        try:
            checkpoints, config = open_inputs(joint), joint
            remarks.append(
                "The vocabularies differ; output.vocabulary: union gives the results the tokens "
                "of all models."
            )
        except ConfigError:
            problems += error.problems
    found = Survey(catalogue=Catalogue(tasks=(), questions=()))
    try:
        found = survey(config.harness_spec())
    except EvaluatorError as error:
        problems += error.problems
    if problems:
        raise InputError(problems)
    return config, checkpoints, found


def _config(values: Mapping[str, Any]) -> RunConfig:
    try:
        return RunConfig.from_text(
            yaml.safe_dump(dict(values), sort_keys=False), name="init", folder=Path.cwd()
        )
    except ConfigError as error:
        raise InputError([line.partition(": ")[2] for line in error.problems]) from error


def _draft(
    asked: NamedRequest,
    config: RunConfig,
    facts: Mapping[str, ModelFacts],
    survey: Survey,
    *,
    out: Path,
    remarks: list[str],
) -> CommentedYaml:
    wanted, folder = asked.wanted, out.parent
    share = _share(survey, remarks)
    values: dict[str, Any] = {
        "models": {name: located(asked.models[name], folder) for name in config.models},
        "tasks": [
            {"name": task.name, "metric": task.metric, "weight": task.weight}
            for task in survey.catalogue.tasks
        ],
        "harness": {"apply_chat_template": False, "batch_size": "auto"},
        "held_out": share,
        "space": {"methods": list(config.methods), "order": "any"},
        "search": {"hours": wanted.hours} if wanted.hours is not None else {},
        "workers": {"count": "auto"},
        "output": config.output.model_dump(exclude_defaults=True),
    }
    if wanted.trials is not None or wanted.hours is None:
        values["search"]["trials"] = wanted.trials or 300
    if config.base is not None:
        base = wanted.base if wanted.base is not None else config.base
        values = {"base": located(base, folder), **values}
    if config.include_path:
        values["include_path"] = [located(f, folder) for f in asked.folders]
    notes = _notes(facts, survey, based=config.base is not None)
    known = [task for task in survey.tasks if task.known is not None]
    if known:
        names = ", ".join(f"{task.name} ({task.known})" for task in known)
        values["search"]["allow_test_sets"] = False
        notes["search.allow_test_sets"] = [
            f"{names}: a test set, which a run refuses to be led by.",
            "Search on a train or dev split instead; true confirms it all the same.",
        ]
        remarks.append(
            f"A run will refuse well-known test sets: {names}. See search.allow_test_sets."
        )
    head = [
        f"Written by `search init`. Next: `search check {out}`, then `search run {out}`.",
        "Lines that are commented out show further keys with their defaults or an example.",
    ]
    return CommentedYaml(values=values, head=head, notes=notes)


def _share(survey: Survey, remarks: list[str]) -> float:
    """The share of questions to hold out, so that enough of every task are."""
    for share in SHARES:
        questions = divide(survey.catalogue, share, seed=0)
        if not held_out_problems(questions, survey.catalogue, share):
            return share
    remarks.append(
        "A task has too few questions to hold any out: the winner's score will flatter it. "
        "Hold out a whole task instead (held_out: [NAME]), or add questions."
    )
    return 0.0


def _notes(
    facts: Mapping[str, ModelFacts], survey: Survey, *, based: bool
) -> dict[str, Sequence[str]]:
    """What is said above each key."""
    notes: dict[str, Sequence[str]] = {
        "models": ["What to merge, by short name."],
        "tasks": ["lm-eval tasks that the search is led by, with the metric and its share."],
        "include_path": ["Folders with further lm-eval task files."],
        "harness": ["How questions are put to the models; passed through to lm-eval."],
        "harness.apply_chat_template": _template_note(facts),
        "held_out": [
            "Share of the questions that the search never sees; the winner is checked on them."
        ],
        "space": ["What may be drawn."],
        "search": ["How long, and with what: whichever budget is spent first ends the search."],
        "workers": ["Who evaluates: one worker per GPU, or per core where there is none."],
        "output": ["What the merged models look like."],
    }
    for name, one in facts.items():
        key = BASE if name == BASE and based else f"models.{name}"
        notes[key] = [_model_note(one)]
    if based:
        notes[BASE] = ["What the models were fine-tuned from.", *notes[BASE]]
    else:
        notes[BASE] = [
            "base: ./path/or/hub-id",
            "What the models were fine-tuned from; without it task_arithmetic, ties and dare",
            "cannot be searched.",
        ]
    for at, task in enumerate(survey.tasks):
        asked = sum(question.task == task.name for question in survey.catalogue.questions)
        notes[f"tasks.{at}"] = [
            f"{asked} questions ({task.dataset}:{task.split}), {task.kind}, {task.shots} examples; "
            f"metrics: {' | '.join(task.metrics)}"
        ]
    return notes


def _model_note(one: ModelFacts) -> str:
    return (
        f"{one.architecture}, {one.layers} layers, {one.parameters / 1e6:,.1f} M weights, "
        f"{'/'.join(one.dtypes)}, {gigabytes(one.bytes)}"
    )


def _template_note(facts: Mapping[str, ModelFacts]) -> list[str]:
    having = [name for name, one in facts.items() if one.chat_template]
    if not having:
        return ["No model has a chat template."]
    if len(having) == len(facts):
        return ["All models have a chat template: true for chat models."]
    return [f"{', '.join(having)} have a chat template, the others have none."]
