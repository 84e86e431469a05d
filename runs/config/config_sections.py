"""The sections of a config file: their keys, types, ranges and defaults.

Every field's description is what the JSON Schema shows in an editor; units and ranges stand there.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    WrapValidator,
)
from pydantic_core import PydanticCustomError

from evaluators.protocol import Floor
from runs.config.yaml_document import shown
from runs.records.record import LOGGERS, SAMPLERS
from spaces.catalogue.extensions import SAMPLERS_GROUP, additions
from spaces.catalogue.method_catalogue import METHODS
from spaces.search_space.bounds import VARIABLE, Range
from spaces.search_space.parameter_ranges import FURTHER


def one_of(value: str, known: Iterable[str]) -> str:
    """``expected one of a, b, got 'c'``, with the nearest known name when there is one."""
    names = list(known)
    near = difflib.get_close_matches(value, names, n=1, cutoff=0.6)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"expected one of {', '.join(names)}, got {shown(value)}{hint}"


def _refuse(text: str) -> PydanticCustomError:
    return PydanticCustomError("expected", "{text}", {"text": text})


def _expecting(words: str) -> WrapValidator:
    """Say what was expected in these words, whatever member of a union came closest."""

    def check(value: Any, handler: Callable[[Any], Any]) -> Any:
        try:
            return handler(value)
        except ValidationError as error:
            raise _refuse(f"expected {words}, got {shown(value)}") from error

    return WrapValidator(check)


def _known(names: Iterable[str]) -> AfterValidator:
    def check(value: str) -> str:
        if value not in names:
            raise _refuse(one_of(value, names))
        return value

    return AfterValidator(check)


def _distinct(values: tuple[str, ...]) -> tuple[str, ...]:
    for at, value in enumerate(values):
        if value in values[:at]:
            raise _refuse(f"expected each name once, got {shown(value)} twice")
    return values


def _ascending(value: tuple[float, float]) -> tuple[float, float]:
    if value[0] > value[1]:
        raise _refuse(f"expected a range low <= high, got {shown(value)}")
    return value


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _named(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


def _off(value: Any) -> Any:
    # YAML reads a bare `off` as false.
    return None if value is False or value == "off" else value


Text = Annotated[str, Field(min_length=1)]
Names = Annotated[tuple[Text, ...], Field(strict=False), AfterValidator(_distinct)]
Bounds = Annotated[
    tuple[float, float],
    Field(strict=False),
    _expecting("a range [low, high] of two finite numbers"),
    AfterValidator(_ascending),
]
Auto = Literal["auto"]
Scalars = dict[
    str, Annotated[str | bool | int | float, _expecting("a text, number, true or false")]
]
MethodName = Annotated[str, _known(METHODS), Field(json_schema_extra={"enum": list(METHODS)})]
_SAMPLERS = (*SAMPLERS, *additions(SAMPLERS_GROUP))
SamplerName = Annotated[str, _known(_SAMPLERS), Field(json_schema_extra={"enum": list(_SAMPLERS)})]
Positive = Annotated[float, Field(gt=0)]
ParameterName = Annotated[str, _known(VARIABLE), Field(json_schema_extra={"enum": list(VARIABLE)})]
ParameterNames = Annotated[
    tuple[ParameterName, ...], Field(strict=False, min_length=1), AfterValidator(_distinct)
]


class Section(BaseModel):
    """What all sections share: no unknown keys, no silent conversions, no change afterwards."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class FloorSection(Section):
    """A floor that moves with the parents."""

    below_best_parent: Annotated[float, Field(ge=0)] = Field(
        description="Allowed loss against the best parent, in the metric's own unit."
    )


class TaskSection(Section):
    """One task; a bare name stands for ``{name: ...}``."""

    model_config = ConfigDict(
        json_schema_extra={
            "if": {"properties": {"weight": {"const": 0}}, "required": ["weight"]},
            "then": {"properties": {"floor": {"not": {"type": "null"}}}, "required": ["floor"]},
        }
    )

    name: Text = Field(description="lm-eval's name of the task, group or tag.")
    metric: Text | None = Field(
        default=None, description="metric or metric,filter; omit for the task's only or first one."
    )
    weight: Annotated[float, Field(ge=0)] = Field(
        default=1.0,
        description="Share in the score; need not sum to 1. 0 keeps a task without seeking it: "
        "with a floor only.",
    )
    lower_is_better: bool | None = Field(
        default=None, description="Direction; omit for the task's own."
    )
    num_fewshot: int | None = Field(
        default=None, ge=0, description="Examples in the prompt; omit for the task's own."
    )
    limit: int | None = Field(
        default=None, ge=1, description="Use only the first N questions of the split."
    )
    group_by: Text | None = Field(
        default=None,
        description="Field of a document, or template, that is the same for those that belong "
        "together (a passage's questions, translations): split and resampled as one.",
    )
    floor: Annotated[
        float | FloorSection | None,
        _expecting("a number, or {below_best_parent: a number of at least 0}"),
    ] = Field(
        default=None,
        description="Limit that its value must keep: a value of the metric, or "
        "{below_best_parent: 0.02}.",
    )

    @property
    def kept_above(self) -> Floor | None:
        """The floor as the evaluators know it."""
        if isinstance(self.floor, FloorSection):
            return Floor(below_best_parent=self.floor.below_best_parent)
        return None if self.floor is None else Floor(value=self.floor)


class HarnessSection(Section):
    """How questions are put to the models; passed through to lm-eval."""

    apply_chat_template: Annotated[bool | Text, _expecting("true, false or a template's name")] = (
        Field(
            default=False, description="Wrap prompts in the tokenizer's chat template; or its name."
        )
    )
    fewshot_as_multiturn: bool = Field(
        default=False, description="Few-shot examples as turns of a chat."
    )
    system_instruction: str | None = Field(default=None, description="System prompt.")
    chat_template_args: Scalars = Field(
        default_factory=dict, description="Further variables that the chat template reads."
    )
    enable_thinking: bool | None = Field(
        default=None,
        description="The chat template's enable_thinking; true needs think_end_token.",
    )
    think_end_token: Annotated[
        Text | Annotated[int, Field(ge=0)] | None, _expecting("a text, or a token's number")
    ] = Field(
        default=None,
        description="What ends a model's thoughts, such as </think>; the answer is what follows.",
    )
    max_think_toks: int | None = Field(
        default=None,
        ge=1,
        description="Most tokens of thoughts, their end included; max_gen_toks is then the "
        "answer's alone. Omit to count both together.",
    )
    end_loops: bool = Field(
        default=True, description="End answers that repeat themselves again and again."
    )
    gen_kwargs: Scalars = Field(
        default_factory=dict, description="Generation settings that override the tasks'."
    )
    engine: Literal["static", "continuous", "vllm", "auto"] = Field(
        default="static",
        description="static: lm-eval's own batches, to the last bit; continuous: what prompts have "
        "in common is computed once; vllm: so too, and answers are written by vLLM; auto: the "
        "last of these that is installed and can run every model.",
    )
    batch_size: Annotated[
        Annotated[int, Field(ge=1)] | Auto, _expecting("a whole number of at least 1, or auto")
    ] = Field(default="auto", description="Sequences per forward pass.")
    max_length: int | None = Field(
        default=None, ge=1, description="Longest context in tokens; omit for the model's own."
    )
    seed: int = Field(
        default=0, ge=0, lt=2**31, description="Seed of the choice of few-shot examples."
    )
    check_degenerate: bool = Field(
        default=True,
        description="Fail models that answer every prompt alike, before their tasks.",
    )
    trust_remote_code: bool = Field(
        default=False, description="Let models and tasks run their own code."
    )


class DepthSection(Section):
    """How values may change over the layers: exactly one of knots and groups."""

    knots: int | None = Field(
        default=None,
        ge=2,
        description="Number of evenly spaced depths with a value each; interpolated in between.",
    )
    groups: int | None = Field(
        default=None,
        ge=2,
        description="Number of equal groups of consecutive layers with a value each.",
    )
    parameters: ParameterNames = Field(
        default=("weight", "t"), description="Parameters that vary over depth."
    )


class SlicesSection(Section):
    """Bounds for stacking layers of the merged model, of the parents, or of both."""

    max_slices: int = Field(default=2, ge=2, description="Most runs of layers in the output.")
    min_layers: int | None = Field(
        default=None,
        ge=1,
        description="Fewest layers in the output; omit for as many as the parents.",
    )
    max_layers: int | None = Field(
        default=None, ge=1, description="Most layers in the output; omit for half as many again."
    )
    sources: Literal["merged", "parents", "any"] = Field(
        default="merged", description="What each run is taken from: merged model, a parent, either."
    )
    max_repeated: int | None = Field(
        default=None,
        ge=0,
        description="Runs in order, each repeating at most N layers; omit for runs anywhere.",
    )
    max_removed: int | None = Field(
        default=None,
        ge=0,
        description="Runs in order, at most N layers left out between two; likewise.",
    )


class SpaceSection(Section):
    """What may be drawn."""

    methods: (
        Annotated[
            tuple[MethodName, ...], Field(strict=False, min_length=1), AfterValidator(_distinct)
        ]
        | None
    ) = Field(
        default=None, description="Merge methods; omit for the usual ones that these models allow."
    )
    weight: Bounds = Field(default=(0.0, 1.5), description="Range of every weight.")
    density: Bounds = Field(
        default=(0.1, 1.0), description="Range of every density, within (0, 1]."
    )
    t: Bounds = Field(default=(0.0, 1.0), description="Range of slerp's position.")
    scale: Bounds = Field(
        default=(0.5, 1.5), alias="lambda", description="Range of the factor of the summed delta."
    )
    gamma: Bounds = Field(
        default=(0.0, 0.1),
        description="Range of the share of outliers that breadcrumbs drops, within [0, 1].",
    )
    epsilon: Bounds = Field(
        default=(0.05, 0.2),
        description="Range of della's epsilon, in [0, 0.5): probabilities span density ± epsilon.",
    )
    select_topk: Bounds = Field(
        default=(0.1, 1.0), description="Range of the share of entries that sce selects."
    )
    nearswap_t: Bounds = Field(
        default=(1e-5, 1e-2), description="Range of nearswap's t, above 0; logarithmic."
    )
    ram_epsilon: Bounds = Field(
        default=(1e-6, 1e-3), description="Range of the changes that ram ignores; logarithmic."
    )
    ram_r: Bounds = Field(default=(0.0, 1.0), description="Range of ramplus_tl's gain r.")
    ram_alpha: Bounds = Field(
        default=(0.0, 1.0), description="Range of ramplus_tl's largest overlap alpha, from 0."
    )
    ranges: dict[Annotated[str, _known(FURTHER)], Bounds] = Field(
        default={},
        description="Ranges of parameters of methods that other packages add, as METHOD_PARAMETER.",
    )
    depth: DepthSection | None = Field(
        default=None, description="Values that change over the layers; omit for one value."
    )
    filters: Names = Field(
        default=(),
        description="Parts of tensor names; matching tensors get their own values.",
    )
    filter_parameters: ParameterNames = Field(
        default=("weight", "t"), description="Parameters that vary by filter."
    )
    order: Literal["all-at-once", "pairwise", "any"] = Field(
        default="any", description="How three or more parents come together."
    )
    slices: Annotated[
        SlicesSection | None,
        BeforeValidator(_off, json_schema_input_type=SlicesSection | Literal["off", False] | None),
    ] = Field(default=None, description="Layer stacking: off, or its bounds.")


class LearnSection(Section):
    """Learning coefficients from search questions before the search."""

    steps: Annotated[int, Field(ge=1)] = Field(
        default=120, description="Maximum number of gradient steps for each learned recipe."
    )
    batch: Annotated[int, Field(ge=1)] = Field(
        default=6, description="Questions per step, over all tasks; at least one of each."
    )
    rate: Positive = Field(
        default=0.1,
        description="Learning rate: about the largest change of a coefficient in one step.",
    )
    share: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.7, description="Largest share of the budget that learning may take."
    )


class SearchSection(Section):
    """How long to search, and with what."""

    trials: Annotated[int, Field(ge=1)] | None = Field(
        default=None,
        description="Maximum number of recipes, seeds included; 300 where no other budget is set.",
    )
    questions: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="Maximum number of questions, final check included."
    )
    tokens: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="Maximum number of tokens that models read and write."
    )
    hours: Positive | None = Field(default=None, description="Maximum wall-clock time in hours.")
    gpu_hours: Positive | None = Field(
        default=None, description="Maximum of the workers' hours, each times its GPUs."
    )
    asking: Literal["auto", "all", "growing"] = Field(
        default="auto",
        description="Questions per recipe: all, or growing blocks; auto: by budget and sampler.",
    )
    sampler: SamplerName = Field(
        default="auto",
        description="auto, surrogate, tpe, cmaes, gp, nsga2, nsga3, random or qmc.",
    )
    objective: Literal["sum", "pareto"] = Field(
        default="sum",
        description="sum: the weighted mean of the tasks' scores; pareto: each task an objective.",
    )
    minimize: Annotated[
        tuple[Literal["answer_length", "parameters"], ...],
        Field(strict=False),
        _expecting("a list of answer_length and parameters"),
    ] = Field(
        default=(),
        description="Further objectives to minimize: answer_length (characters "
        "of written answers), parameters (of the model).",
    )
    seed: int = Field(default=0, ge=0, lt=2**31, description="Seed of sampler and question order.")
    seeds: Annotated[
        Literal["default", "none"] | Annotated[tuple[Text, ...], Field(strict=False, min_length=1)],
        _expecting("default, none, or a list of defaults, recipe files, their folders and studies"),
    ] = Field(
        default="default",
        description="Seed recipes besides parents, average and base: default, none, or a list of "
        "defaults, recipe files, folders of them, and studies (study.db, or study.db:10).",
    )
    validate_top: int = Field(
        default=3,
        ge=1,
        alias="validate",
        description="Number of best recipes scored on held-out questions at the end.",
    )
    learn: Annotated[
        LearnSection | Literal["auto"] | None,
        BeforeValidator(
            _off, json_schema_input_type=LearnSection | Literal["auto", "off", False] | None
        ),
        _expecting("auto, off, or steps, batch, rate and share"),
    ] = Field(
        default="auto",
        description="Learn coefficients from search questions first: auto, off, or a mapping.",
    )
    allow_test_sets: bool = Field(
        default=False, description="Allow well-known benchmark test sets such as GSM8K."
    )


class WorkersSection(Section):
    """Who evaluates candidates."""

    count: Annotated[
        Annotated[int, Field(ge=1)] | Auto, _expecting("a whole number of at least 1, or auto")
    ] = Field(default="auto", description="Number of workers; auto fills the machine or cluster.")
    gpus: Annotated[
        Annotated[float, Field(ge=0)] | Auto, _expecting("a number of at least 0, or auto")
    ] = Field(
        default="auto",
        description="GPUs of one worker: a fraction of one, or several to spread a model over; "
        "auto: 1 if any.",
    )
    parents_on_device: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.5,
        description="Largest share of each GPU's memory for the parents; else they are streamed.",
    )
    cpus: Positive = Field(default=1.0, description="CPU cores of one worker.")
    threads: Annotated[
        Annotated[int, Field(ge=1)] | Auto, _expecting("a whole number of at least 1, or auto")
    ] = Field(default="auto", description="torch threads of one worker; auto: as many as cpus.")
    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", description="Where models live.")
    ray: bool = Field(
        default=True, description="Workers as Ray actors; false: one, in this process."
    )
    ray_address: Text | None = Field(
        default=None, description="Address of a Ray cluster; omit for a local one."
    )
    timeout: Positive | None = Field(
        default=None, description="Time limit for one candidate in seconds; omit for no limit."
    )
    retries: int = Field(
        default=1,
        ge=0,
        description="How often a candidate is tried again after its worker was lost.",
    )
    wait: Positive = Field(
        default=600.0,
        description="Seconds to wait while there is no worker, for a node or a worker's start.",
    )
    runtime_env: dict[str, Any] = Field(
        default_factory=dict, description="Ray's runtime environment of the workers."
    )


class OutputSection(Section):
    """What the merged models look like."""

    dtype: Literal["float32", "float16", "bfloat16"] | None = Field(
        default=None, description="Dtype of the weights; omit for the widest of the inputs."
    )
    tokenizer: Text | None = Field(
        default=None,
        description="Model that gives config and tokenizer; omit for the base, else the first.",
    )
    vocabulary: Text | None = Field(
        default=None,
        description="Vocabulary if they differ: union, or a model; omit if they are equal.",
    )
    vision: Text = Field(
        default="merge",
        description="Vision tower of every merge: merge (as the rest), average, or a model's.",
    )
    seed: int = Field(
        default=0, ge=0, lt=2**31, description="Seed of the random masks (DARE, DELLA)."
    )
    loggers: Annotated[
        tuple[Annotated[str, _known(LOGGERS)], ...],
        Field(strict=False),
        BeforeValidator(_listed, json_schema_input_type=str | list[str]),
    ] = Field(default=(), description="Experiment trackers to log to: tensorboard, mlflow, wandb.")
    answers: Annotated[
        Annotated[int, Field(ge=0)] | Literal["all"],
        _expecting("a number of megabytes of at least 0, or all"),
    ] = Field(
        default=64,
        description="Most megabytes of answers' texts that the study keeps, of the best "
        "candidates; 0 for none, all for every candidate's.",
    )

    @property
    def answers_room(self) -> float:
        """Bytes for the texts of answers."""
        return math.inf if self.answers == "all" else self.answers * 1e6


Tasks = Annotated[
    tuple[
        Annotated[TaskSection, BeforeValidator(_named, json_schema_input_type=TaskSection | str)],
        ...,
    ],
    Field(strict=False, min_length=1),
]
Folders = Annotated[
    tuple[Text, ...],
    Field(strict=False),
    BeforeValidator(_listed, json_schema_input_type=str | list[str]),
]
Share = Annotated[float, Field(ge=0, le=0.9)]
HeldOut = Annotated[
    Share | Annotated[tuple[Text, ...], Field(strict=False, min_length=1)],
    _expecting("a share from 0 to 0.9, or a list of task names"),
]


def as_range(bounds: tuple[float, float]) -> Range:
    """A config's ``[low, high]`` as the space holds it."""
    return Range(low=bounds[0], high=bounds[1])
