"""What a worker needs to know to score recipes with lm-eval: plain values that travel to it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from evaluators.protocol import Floor
from spaces.paths import is_folder

Scalar = str | int | float | bool

QUANTISED = ("nf4", "int8", "fp8")
"""How the weights of candidates may be quantised before they are asked."""

MOST_KEYS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
"""Names of the most tokens of an answer among generation settings, the one that counts first, as
in lm-eval."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskSpec:
    """A task as the user asks for it.

    Attributes:
        name: lm-eval's name.
        metric: ``metric`` or ``metric,filter``; ``None`` takes the task's only or first metric.
        weight: Share in the combined score; 0 only with a floor.
        lower_is_better: Direction; ``None`` takes the task's own.
        num_fewshot: Examples in the prompt; ``None`` takes the task's own.
        limit: Most questions used, the first ones of the split; ``None`` for all.
        group_by: Field of a document, or Jinja template over its fields, whose value is the same
            for documents that belong together; ``None`` for each on its own.
        floor: What its value must not fall below; of a group, that of each of its tasks.
    """

    name: str
    metric: str | None = None
    weight: float = 1.0
    lower_is_better: bool | None = None
    num_fewshot: int | None = None
    limit: int | None = None
    group_by: str | None = None
    floor: Floor | None = None

    def problems(self) -> list[str]:
        """What is wrong with it without looking at the task, one line each."""
        found = []
        if not (self.weight >= 0 and math.isfinite(self.weight)):
            found.append(f"weight: expected a number of at least 0, got {self.weight}")
        if self.weight == 0 and self.floor is None:
            found.append("weight: expected a number above 0 without a floor, got 0")
        if self.num_fewshot is not None and self.num_fewshot < 0:
            found.append(f"num_fewshot: expected at least 0, got {self.num_fewshot}")
        if self.limit is not None and self.limit < 1:
            found.append(f"limit: expected at least 1, got {self.limit}")
        return [f"task {self.name}: {problem}" for problem in found]


@dataclass(frozen=True, kw_only=True, slots=True)
class HarnessSpec:
    """Everything that decides what a question is and how it is answered.

    Attributes:
        models: Name and location (path or hub id) of every model, the base among them.
        tasks: At least one.
        include_path: Folders with further lm-eval task files, absolute.
        apply_chat_template: Wrap prompts in the tokenizer's chat template; a string names one.
        fewshot_as_multiturn: Few-shot examples as turns of a chat.
        system_instruction: System prompt, or ``None``.
        chat_template_args: Further variables of the chat template, as sorted pairs.
        enable_thinking: Another one; where true, only written answers can be asked for.
        think_end_token: Text or token after which thoughts are over and the answer begins;
            ``None`` takes all that is written for the answer.
        max_think_toks: Most tokens of thoughts, their end included; ``None`` counts them among
            the answer's.
        end_loops: End written answers that repeat themselves to the letter, again and again.
        gen_kwargs: Generation settings that override the tasks', as sorted pairs.
        engine: What runs the model: ``static`` (lm-eval's own batches) or ``continuous``; settled
            before a worker is set up.
        batch_size: Sequences per forward pass, or ``"auto"``.
        max_length: Longest context in tokens; ``None`` takes the model's.
        device: ``cpu``, ``cuda`` or ``auto``.
        gpus: GPUs of a worker: a share of one, or a whole number that the model is spread over.
        parents_on_device: Most of each GPU's memory that parents may take, from 0 to 1.
        most_layers: Layers of the deepest candidate; ``None`` for the models' own.
        trees: Whether merges of merges are drawn.
        threads: torch threads of a worker; ``None`` leaves torch's default.
        seed: For few-shot sampling.
        check_degenerate: Look at every merged model before its tasks are paid for.
        trust_remote_code: Let models and tasks run code of their own.
        statistics: Folder for what is computed once of the models, shared by the workers of a
            node; ``None``, or one that a node cannot make, keeps it in each worker's memory.
        quantise: How the weights of candidates are quantised before they are asked, one of
            ``QUANTISED``; ``None`` asks them as they are built.
        methods: Those of the search, whose memory is planned; ``None`` for those searched by
            default.
    """

    models: tuple[tuple[str, str], ...]
    tasks: tuple[TaskSpec, ...]
    include_path: tuple[str, ...] = ()
    apply_chat_template: bool | str = False
    fewshot_as_multiturn: bool = False
    system_instruction: str | None = None
    chat_template_args: tuple[tuple[str, Scalar], ...] = ()
    enable_thinking: bool | None = None
    think_end_token: str | int | None = None
    max_think_toks: int | None = None
    end_loops: bool = True
    gen_kwargs: tuple[tuple[str, Scalar], ...] = ()
    engine: str = "static"
    batch_size: int | str = "auto"
    max_length: int | None = None
    device: str = "auto"
    gpus: float = 1.0
    parents_on_device: float = 0.5
    most_layers: int | None = None
    trees: bool = False
    threads: int | None = None
    seed: int = 0
    check_degenerate: bool = True
    trust_remote_code: bool = False
    statistics: str | None = None
    quantise: str | None = None
    methods: tuple[str, ...] | None = None

    def chat_variables(self) -> dict[str, Scalar]:
        """What the chat template is given besides the messages."""
        thinking = {} if self.enable_thinking is None else {"enable_thinking": self.enable_thinking}
        return {**dict(self.chat_template_args), **thinking}

    def problems(self) -> list[str]:
        """What is wrong with it without looking at models and tasks, one line each."""
        found = [problem for task in self.tasks for problem in task.problems()]
        names = [task.name for task in self.tasks]
        twice = sorted({name for name in names if names.count(name) > 1})
        found += [f"task {name}: expected each task once, got it twice" for name in twice]
        if not self.tasks:
            found.append("tasks: expected at least one, got none")
        found += [
            f"include_path: expected a folder, got {folder!r}, which is none"
            for folder in self.include_path
            if not is_folder(folder)
        ]
        if isinstance(self.batch_size, str) and self.batch_size != "auto":
            found.append(f"batch_size: expected a number or auto, got {self.batch_size!r}")
        if isinstance(self.batch_size, int) and self.batch_size < 1:
            found.append(f"batch_size: expected at least 1, got {self.batch_size}")
        return found
