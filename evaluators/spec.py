"""What a worker needs to know to score recipes with lm-eval: plain values that travel to it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskSpec:
    """A task as the user asks for it.

    Attributes:
        name: lm-eval's name.
        metric: ``metric`` or ``metric,filter``; ``None`` takes the task's only or first metric.
        weight: Share in the combined score, above 0.
        lower_is_better: Direction; ``None`` takes the task's own.
        num_fewshot: Examples in the prompt; ``None`` takes the task's own.
        limit: Most questions used, the first ones of the split; ``None`` for all.
    """

    name: str
    metric: str | None = None
    weight: float = 1.0
    lower_is_better: bool | None = None
    num_fewshot: int | None = None
    limit: int | None = None


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
        gen_kwargs: Generation settings that override the tasks', as sorted pairs.
        batch_size: Sequences per forward pass, or ``"auto"``.
        max_length: Longest context in tokens; ``None`` takes the model's.
        device: ``cpu``, ``cuda`` or ``auto``.
        threads: torch threads of a worker; ``None`` leaves torch's default.
        seed: For few-shot sampling.
        trust_remote_code: Let models and tasks run code of their own.
    """

    models: tuple[tuple[str, str], ...]
    tasks: tuple[TaskSpec, ...]
    include_path: tuple[str, ...] = ()
    apply_chat_template: bool | str = False
    fewshot_as_multiturn: bool = False
    system_instruction: str | None = None
    gen_kwargs: tuple[tuple[str, str | int | float | bool], ...] = ()
    batch_size: int | str = "auto"
    max_length: int | None = None
    device: str = "auto"
    threads: int | None = None
    seed: int = 0
    trust_remote_code: bool = False
