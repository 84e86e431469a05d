"""Well-known test sets: what a search must not be led by unless its user says so."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

_OTHER_SPLIT = re.compile(r"_(train|training|dev|val|valid|validation|calibration)\b")
"""In a task's name: it says itself that it is another split of the set."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Benchmark:
    """A benchmark that results are published on.

    Attributes:
        title: Its usual name.
        names: Pattern of lm-eval's names of its tasks, from their start.
        datasets: Where its questions lie, as ``dataset_path`` has them, in lower case.
        splits: The splits that results are published on.
    """

    title: str
    names: str
    datasets: tuple[str, ...]
    splits: tuple[str, ...] = ("test",)


_VALIDATION = ("test", "validation", "val")

KNOWN = (
    Benchmark(title="GSM8K", names=r"gsm8k|gsm_plus|mgsm", datasets=("gsm8k", "openai/gsm8k")),
    Benchmark(
        title="MATH",
        names=r"minerva_math|hendrycks_math|leaderboard_math|math_word|competition_math|aime|math$",
        datasets=("hendrycks/competition_math", "eleutherai/hendrycks_math", "lighteval/math"),
    ),
    Benchmark(
        title="MMLU",
        names=r"mmlu|hendrycks_test|hendrycksTest|global_mmlu|cmmlu|leaderboard_mmlu",
        datasets=("cais/mmlu", "tiger-lab/mmlu-pro", "hails/mmlu_no_train"),
    ),
    Benchmark(
        title="HellaSwag",
        names="hellaswag",
        datasets=("hellaswag", "rowan/hellaswag"),
        splits=_VALIDATION,
    ),
    Benchmark(title="ARC", names=r"arc_(easy|challenge)|ai2_arc", datasets=("allenai/ai2_arc",)),
    Benchmark(
        title="TruthfulQA",
        names="truthfulqa",
        datasets=("truthful_qa", "truthfulqa/truthful_qa"),
        splits=_VALIDATION,
    ),
    Benchmark(
        title="WinoGrande",
        names="winogrande",
        datasets=("winogrande", "allenai/winogrande"),
        splits=_VALIDATION,
    ),
    Benchmark(
        title="HumanEval",
        names="humaneval",
        datasets=("openai/openai_humaneval", "evalplus/humanevalplus"),
    ),
    Benchmark(
        title="MBPP", names="mbpp", datasets=("google-research-datasets/mbpp", "evalplus/mbppplus")
    ),
    Benchmark(
        title="IFEval",
        names=r"ifeval|leaderboard_ifeval",
        datasets=("google/ifeval",),
        splits=("test", "train"),  # it has no other split
    ),
    Benchmark(
        title="BIG-Bench",
        names=r"bbh|bigbench|leaderboard_bbh",
        datasets=("lukaemon/bbh", "saylortwift/bbh", "hails/bigbench"),
        splits=("test", "default", *_VALIDATION),
    ),
    Benchmark(
        title="GPQA",
        names=r"gpqa|leaderboard_gpqa",
        datasets=("idavidrein/gpqa",),
        splits=("test", "train", "validation"),  # likewise
    ),
    Benchmark(title="MuSR", names=r"musr|leaderboard_musr", datasets=("taur-lab/musr",)),
    Benchmark(title="PIQA", names="piqa", datasets=("piqa", "baber/piqa"), splits=_VALIDATION),
    Benchmark(
        title="OpenBookQA", names="openbookqa", datasets=("openbookqa", "allenai/openbookqa")
    ),
    Benchmark(title="BoolQ", names="boolq", datasets=("boolq", "google/boolq"), splits=_VALIDATION),
    Benchmark(
        title="CommonsenseQA",
        names=r"commonsense_qa",
        datasets=("tau/commonsense_qa",),
        splits=_VALIDATION,
    ),
    Benchmark(title="LAMBADA", names="lambada", datasets=("lambada", "eleutherai/lambada_openai")),
    Benchmark(title="DROP", names="drop", datasets=("eleutherai/drop",), splits=_VALIDATION),
    Benchmark(
        title="TriviaQA",
        names="triviaqa",
        datasets=("trivia_qa", "mandarjoshi/trivia_qa"),
        splits=_VALIDATION,
    ),
    Benchmark(
        title="Natural Questions", names="nq_open", datasets=("nq_open",), splits=_VALIDATION
    ),
    Benchmark(title="AGIEval", names="agieval", datasets=()),
)
"""Ordered as they are looked for; the first that fits is named."""


def known_set(name: str, *, dataset: str, split: str) -> str | None:
    """The title of the well-known test set that a task asks, if it does.

    Args:
        name: lm-eval's name of the task.
        dataset: Its ``dataset_path``; may be empty.
        split: The split its questions come from.
    """
    for known in KNOWN:
        if dataset.lower() in known.datasets:
            return known.title if split in known.splits else None
        if re.match(rf"(?:{known.names})(?![a-z])", name) and not _OTHER_SPLIT.search(name):
            return known.title if not split.startswith("train") else None
    return None


def unconfirmed(found: Iterable[tuple[str, str, str]]) -> list[str]:
    """What to say of well-known test sets that nobody has confirmed, one line each.

    Args:
        found: Task, title of the set, and split.
    """
    return [
        f"tasks: {task}: expected a train or dev split to search on, got the well-known test set "
        f"{title} (split {split!r}); a searched score is not a test result. Search on other "
        "questions, or allow it with search.allow_test_sets: true (--allow-test-sets)"
        for task, title, split in found
    ]
