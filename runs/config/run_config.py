"""A run's configuration: read from YAML, checked as a whole, every problem reported at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from evaluators.harness_spec import HarnessSpec, TaskSpec
from runs.config import config_checks, locations, yaml_document
from runs.config.config_checks import BASE
from runs.config.config_sections import (
    Folders,
    HarnessSection,
    HeldOut,
    OutputSection,
    SearchSection,
    Section,
    SpaceSection,
    Tasks,
    Text,
    WorkersSection,
    as_range,
)
from runs.config.file_kinds import not_a_config
from runs.config.yaml_document import YamlDocument, YamlProblem
from spaces.catalogue.method_catalogue import METHODS, BaseRule
from spaces.errors import UserError
from spaces.recipes.recipe import NAME, check_name
from spaces.recipes.vision import Vision
from spaces.recipes.vocabulary import Vocabulary
from spaces.search_space.bounds import Depth, Order, SpaceError, Stacking
from spaces.search_space.space import Space

if TYPE_CHECKING:  # brings torch, which reading a config must not
    from merging.checkpoints.checkpoint import Checkpoint

SCHEMA_ID = "urn:merge-search:config"
"""What our JSON Schema is known by."""

_TRIAL_LAYERS = 1000  # deep enough for any bounds that a real model could satisfy


class ConfigError(UserError, ValueError):
    """A config, or the models it names, that cannot be used.

    Attributes:
        problems: One line each; all of them, in the order of the file.
    """


OWN = "x-"
"""Beginning of keys at the top that are the user's own, such as to hold YAML anchors."""


def _name(value: str) -> str:
    check_name(value)
    return value


def _empty(value: Any) -> Any:
    return {} if value is None else value  # a section whose keys are all commented out


def _section_or_nothing(kind: type[Section]) -> BeforeValidator:
    return BeforeValidator(_empty, json_schema_input_type=kind | None)


class RunConfig(Section):
    """Everything a user decides about a run; immutable.

    The sections are attributes of their keys' names, but ``space``, which is ``bounds`` here
    because ``space()`` makes the Space.
    """

    base: Text | None = Field(
        default=None,
        description="Common ancestor: folder or hub id@revision; omit if there is none.",
    )
    models: dict[Annotated[str, AfterValidator(_name)], Text] = Field(
        min_length=1, description="Parents by short name: folder or hub id; path+adapter for LoRA."
    )
    tasks: Tasks = Field(description="lm-eval tasks: names, or mappings with settings.")
    include_path: Folders = Field(
        default=(), description="Folders with further lm-eval task files."
    )
    evaluator: Text | None = Field(
        default=None,
        description="Evaluator of your own: file.py:NAME, module:NAME, or the name that a package "
        "has for it; omit for lm-eval's tasks.",
    )
    harness: Annotated[HarnessSection, _section_or_nothing(HarnessSection)] = Field(
        default=HarnessSection(), description="How lm-eval asks: chat template, batches, answers."
    )
    held_out: HeldOut = Field(
        default=0.3,
        description="Share of questions never used for search (0 to 0.9), or task names.",
    )
    bounds: Annotated[SpaceSection, _section_or_nothing(SpaceSection)] = Field(
        default=SpaceSection(),
        alias="space",
        description="What is searched: methods, weights, depth, filters, merge order, slices.",
    )
    search: Annotated[SearchSection, _section_or_nothing(SearchSection)] = Field(
        default=SearchSection(), description="Budget, sampler, first recipes and the final check."
    )
    workers: Annotated[WorkersSection, _section_or_nothing(WorkersSection)] = Field(
        default=WorkersSection(),
        description="Workers, their GPUs, the Ray cluster.",
    )
    output: Annotated[OutputSection, _section_or_nothing(OutputSection)] = Field(
        default=OutputSection(),
        description="The merged model: dtype, tokenizer, vocabulary.",
    )

    @model_validator(mode="after")
    def _check_across(self) -> RunConfig:
        problems = config_checks.cross_problems(self.to_dict())
        if problems:
            words = "\n".join(f"{yaml_document.path_text(p.place)}: {p.text}" for p in problems)
            raise PydanticCustomError("cross", "{words}", {"words": words})
        return self

    @classmethod
    def from_text(cls, text: str, *, name: str = "config", folder: Path | None = None) -> RunConfig:
        """Read a config.

        Args:
            text: The YAML.
            name: What to call it in messages.
            folder: What relative paths are relative to; ``None`` takes paths as they are.

        Raises:
            ConfigError: With every problem there is, each with its line.
        """
        parsed = yaml_document.parse(text, name)
        if not isinstance(parsed.data, dict):
            raise ConfigError(parsed.messages(list(parsed.problems)))
        if (other := not_a_config(parsed.data)) is not None:
            raise ConfigError([f"{name}: {other}"])
        data = {key: value for key, value in parsed.data.items() if not key.startswith(OWN)}
        problems = list(parsed.problems)
        if folder is not None:
            data = locations.located(data, folder)
            problems += locations.missing_folders(data) + locations.missing_seeds(data)
        return _validated(data, parsed, problems)

    def replaced(self, values: Mapping[str, Any]) -> RunConfig:
        """The config with other values under dotted keys, such as ``{"search.trials": 500}``.

        Raises:
            ConfigError: If the result is not a config.
        """
        data = self.to_dict()
        for dotted, value in values.items():
            section, key = _section(data, dotted)
            section[key] = value
        return _validated(data, YamlDocument(name="command line", data=data, lines={}), [])

    def to_dict(self) -> dict[str, Any]:
        """Plain values under the keys of the file, defaults written out."""
        return self.model_dump(mode="json", by_alias=True)

    def to_yaml(self) -> str:
        """Canonical text: every key in a fixed order, defaults written out."""
        return yaml_document.dump(self.to_dict())

    @property
    def locations(self) -> dict[str, str]:
        """Path or hub id of every model by name, the base first under the name ``base``."""
        return ({BASE: self.base} if self.base is not None else {}) | self.models

    @property
    def methods(self) -> tuple[str, ...]:
        """Methods that may be drawn; by default the usual ones, less those that lack their base."""
        if self.bounds.methods is not None:
            return self.bounds.methods
        lacking = self.lacking
        return tuple(name for name in self._usual() if name not in lacking)

    @property
    def lacking(self) -> tuple[str, ...]:
        """The usual methods that are not drawn because they need a base and there is none."""
        if self.base is not None or self.bounds.methods is not None:
            return ()
        return tuple(name for name in self._usual() if METHODS[name].base is BaseRule.REQUIRED)

    def _usual(self) -> tuple[str, ...]:
        """Methods that are drawn by default from so many models with a base."""
        count = len(self.models)
        paired = count > 2 and self.bounds.order != "all-at-once"
        return tuple(
            name
            for name, method in METHODS.items()
            if method.searched_by_default and (method.takes(count) or (paired and method.takes(2)))
        )

    def space(self, layers: int, vision: Sequence[str] = ()) -> Space:
        """The search space for parents of this many layers.

        Args:
            layers: Their number.
            vision: Parts of the names of a vision tower's tensors, where there is one.

        Raises:
            SpaceError: If the bounds do not fit models of this depth; its problems name the keys
                of the config's ``space`` section.
        """
        try:
            return self._space(layers, vision)
        except SpaceError as error:
            found = [config_checks.space_problem(text) for text in error.problems]
            lines = [f"{yaml_document.path_text(item.place)}: {item.text}" for item in found]
            raise SpaceError([line.removeprefix("space.") for line in lines]) from error

    def _space(self, layers: int, vision: Sequence[str] = ()) -> Space:
        bounds, output = self.bounds, self.output
        return Space(
            parents=tuple(self.models),
            base=BASE if self.base is not None else None,
            layers=layers,
            methods=self.methods,
            weight=as_range(bounds.weight),
            density=as_range(bounds.density),
            t=as_range(bounds.t),
            scale=as_range(bounds.scale),
            gamma=as_range(bounds.gamma),
            epsilon=as_range(bounds.epsilon),
            select_topk=as_range(bounds.select_topk),
            nearswap_t=as_range(bounds.nearswap_t),
            ram_epsilon=as_range(bounds.ram_epsilon),
            ram_r=as_range(bounds.ram_r),
            ram_alpha=as_range(bounds.ram_alpha),
            ranges=tuple((name, as_range(given)) for name, given in bounds.ranges.items()),
            depth=Depth(**bounds.depth.model_dump()) if bounds.depth else Depth(),
            filters=bounds.filters,
            filter_parameters=bounds.filter_parameters,
            order=Order(bounds.order),
            stacking=self._stacking(layers),
            dtype=output.dtype,
            seed=output.seed,
            tokenizer=output.tokenizer,
            giver=BASE if self.base is not None else next(iter(self.models), None),
            vocabulary=self._vocabulary(),
            vision=self._vision(vision),
        )

    def _vision(self, parts: Sequence[str]) -> Vision | None:
        """What the vision tower is, where it is not merged as all else."""
        asked = self.output.vision
        if not parts or asked == config_checks.MERGE:
            return None
        model = None if asked == config_checks.AVERAGE and asked not in self.models else asked
        return Vision(parts=tuple(parts), model=model)

    def _vocabulary(self) -> Vocabulary | None:
        """Whose vocabulary the results get; ``union`` is one of all, unless a model is named so."""
        asked = self.output.vocabulary
        if asked is None:
            return None
        return Vocabulary(
            model=None if asked == config_checks.UNION and asked not in self.models else asked
        )

    def _stacking(self, layers: int) -> Stacking | None:
        slices = self.bounds.slices
        if slices is None:
            return None
        low, high = slices.min_layers, slices.max_layers
        if low is None:
            low = layers if high is None else min(layers, high)
        if high is None:
            high = max(low, layers + layers // 2)
        return Stacking(
            max_slices=slices.max_slices,
            min_layers=low,
            max_layers=high,
            sources=slices.sources,
            max_repeated=slices.max_repeated,
            max_removed=slices.max_removed,
        )

    def harness_spec(self) -> HarnessSpec:
        """What a worker needs to know to score recipes."""
        harness, workers = self.harness, self.workers
        threads = workers.threads
        return HarnessSpec(
            models=tuple(self.locations.items()),
            tasks=tuple(
                TaskSpec(**task.model_dump() | {"floor": task.kept_above}) for task in self.tasks
            ),
            include_path=self.include_path,
            apply_chat_template=harness.apply_chat_template,
            fewshot_as_multiturn=harness.fewshot_as_multiturn,
            system_instruction=harness.system_instruction,
            chat_template_args=tuple(sorted(harness.chat_template_args.items())),
            enable_thinking=harness.enable_thinking,
            think_end_token=harness.think_end_token,
            max_think_toks=harness.max_think_toks,
            end_loops=harness.end_loops,
            gen_kwargs=tuple(sorted(harness.gen_kwargs.items())),
            engine=harness.engine,
            batch_size=harness.batch_size,
            max_length=harness.max_length,
            device=workers.device,
            gpus=1.0 if isinstance(workers.gpus, str) else workers.gpus,
            parents_on_device=workers.parents_on_device,
            threads=max(1, int(workers.cpus)) if isinstance(threads, str) else threads,
            seed=harness.seed,
            check_degenerate=harness.check_degenerate,
            trust_remote_code=harness.trust_remote_code,
        )


def load_config(path: Path) -> RunConfig:
    """Read a config file; relative paths in it are relative to its folder.

    Raises:
        ConfigError: With every problem there is: ``search.yaml:14: space.density: expected ...``.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        text = f"{path}: expected UTF-8 text, got another encoding at byte {error.start}"
        raise ConfigError([text]) from error
    except FileNotFoundError as error:
        raise ConfigError([f"{path}: expected a config file, got no such file"]) from error
    except OSError as error:
        raise ConfigError([f"{path}: expected a config file, got: {error.strerror}"]) from error
    return RunConfig.from_text(text, name=str(path), folder=path.resolve().parent)


@cache
def json_schema() -> dict[str, Any]:
    """JSON Schema of the config file, for editors."""
    schema = RunConfig.model_json_schema(by_alias=True, mode="validation")
    schema["properties"]["models"]["propertyNames"] = {
        "pattern": f"^{NAME}$",
        "not": {"const": BASE},
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": SCHEMA_ID,
        **schema,
        "title": "merge-search config",
        "patternProperties": {f"^{OWN}": {"description": "Your own, such as to hold anchors."}},
    }


def open_inputs(config: RunConfig) -> dict[str, Checkpoint]:
    """Open every model of a config by its headers, and check that they go together.

    Returns:
        Checkpoints by name, the base first under the name ``base``.

    Raises:
        ConfigError: With the problems of all models.
    """
    from merging.checkpoints.checkpoint import Checkpoint, CheckpointError
    from merging.planning.merge_plan import check_parents

    opened: dict[str, Checkpoint] = {}
    problems: list[str] = []
    for name, location in config.locations.items():
        try:
            opened[name] = Checkpoint.open(location, name=name)
        except CheckpointError as error:
            problems += error.problems
    if not problems:
        base = BASE if config.base is not None else None
        problems += check_parents(opened, base, same_tokens=config.output.vocabulary is None)
        if config.output.vision != config_checks.MERGE and not _vision_parts(config, opened):
            problems.append(
                f"output.vision: expected models with a vision tower for {config.output.vision!r}, "
                "got none; leave the key out"
            )
    if problems:
        raise ConfigError(problems)
    return opened


def space_of(config: RunConfig, checkpoints: Mapping[str, Checkpoint]) -> Space:
    """The search space of a config for its models.

    Raises:
        SpaceError: As ``RunConfig.space``.
    """
    layers = next(iter(checkpoints.values())).layers
    count = layers.count if layers is not None else 1
    return config.space(count, _vision_parts(config, checkpoints))


def _vision_parts(config: RunConfig, checkpoints: Mapping[str, Checkpoint]) -> tuple[str, ...]:
    """Parts of the names of the tensors that ``output.vision`` is about."""
    giver = checkpoints.get(config.output.vision)
    givers = checkpoints.values() if giver is None else [giver]
    return tuple(dict.fromkeys(part for one in givers for part in one.vision))


def _validated(
    data: dict[str, Any], source: YamlDocument, problems: list[YamlProblem]
) -> RunConfig:
    """The config of these values, or all problems: given ones, types, and across keys."""
    config: RunConfig | None = None
    try:
        config = RunConfig.model_validate(data)
    except ValidationError as error:
        problems += config_checks.typed_problems(error, json_schema())
    problems += config_checks.cross_problems(data)
    broken = {problem.place[0] for problem in problems if problem.place}
    if not broken & {"base", "models", "space", "output"}:
        problems += _space_problems(data)
    if problems or config is None:
        raise ConfigError(source.messages(problems))
    return config


def _space_problems(data: Mapping[str, Any]) -> list[YamlProblem]:
    """What the space itself finds wrong with the bounds, whatever else is wrong in the config."""
    own = {key: data[key] for key in ("base", "models", "space", "output") if key in data}
    try:
        config = RunConfig.model_validate(own | {"tasks": ["any"]})
        slices = config.bounds.slices
        if slices is not None and (slices.max_repeated, slices.max_removed) != (None, None):
            # Runs in order stay near the depth of the parents, which is not known yet.
            bounds = config.bounds.model_copy(update={"slices": None})
            config = config.model_copy(update={"bounds": bounds})
        config._space(_TRIAL_LAYERS)
    except ValidationError:
        return []  # such as no models at all: reported already
    except SpaceError as error:
        return [config_checks.space_problem(text) for text in error.problems]
    return []


def _section(data: dict[str, Any], dotted: str) -> tuple[dict[str, Any], str]:
    """The mapping that holds a dotted key, and the key in it."""
    *sections, key = dotted.split(".")
    for section in sections:
        data = data[section]
    return data, key
