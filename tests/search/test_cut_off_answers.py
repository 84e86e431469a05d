"""Answers cut off at the most tokens allowed: noted for each, summed up, and warned of."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from evaluators.harness.answers.answer_endings import (
    AnswerEnd,
    AnswerEndings,
    Ending,
    ending_of,
)
from evaluators.harness.engines.engine_choice import ENGINES
from evaluators.harness.harness_evaluator import HarnessEvaluator
from evaluators.harness_spec import HarnessSpec, TaskSpec
from evaluators.protocol import Candidate, Score, TaskScore
from runs.records.pooled_evaluations import pooled
from spaces.recipes.recipe import Merge, Model, Recipe, Source, parameters

Command = Callable[..., Any]
Project = Callable[..., Path]


@pytest.fixture(scope="module")
def brief(tiny_family: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One of the family that ends its answers at once, where the others never do."""
    folder = Path(shutil.copytree(tiny_family["math"], tmp_path_factory.mktemp("b") / "brief"))
    tensors = load_file(folder / "model.safetensors")
    end = json.loads((folder / "config.json").read_text())["eos_token_id"]
    head = torch.zeros_like(tensors["lm_head.weight"])
    tensors["lm_head.weight"] = head  # all tokens alike: the first one, <pad>, would be taken
    tensors["model.norm.weight"] = torch.zeros_like(tensors["model.norm.weight"])
    tensors["model.norm.weight"][0] = 1.0
    tensors["model.embed_tokens.weight"][:, 0] = 5.0  # so that the first entry is above 0
    head[end, 0] = 1.0
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize("engine", ENGINES)
def test_shares_and_lengths_of_a_task(
    tiny_family: dict[str, Path], brief: Path, tasks_folder: Path, engine: str
) -> None:
    spec = HarnessSpec(
        models=(("brief", str(brief)), ("code", str(tiny_family["code"]))),
        tasks=(TaskSpec(name="write"), TaskSpec(name="pick")),
        include_path=(str(tasks_folder),),
        engine=engine,
        check_degenerate=False,
    )
    evaluator = HarnessEvaluator(spec)
    ids = tuple(question.id for question in evaluator.catalogue().questions)
    found = {}
    for name in ("brief", "code"):
        source = Source(of=Model(name), parameters=parameters(weight=1.0))
        recipe = Recipe(root=Merge(method="linear", sources=(source,)))
        score = evaluator.evaluate(Candidate(id=0, recipe=recipe, questions=ids))
        assert isinstance(score, Score), score
        found[name] = {task.task: task for task in score.tasks}
    evaluator.close()
    assert (found["brief"]["write"].cut_off, found["brief"]["write"].length) == (0.0, 0.0)
    code = found["code"]["write"]
    assert code.cut_off is not None
    assert code.cut_off > 0.9
    assert code.length is not None
    assert 1.0 < code.length <= 3.0  # of three tokens, one character each
    for name in found:
        assert (found[name]["pick"].cut_off, found[name]["pick"].length) == (None, None)


class Tokenizer:
    """Tokens are characters."""

    def decode(self, tokens: list[int]) -> str:
        return "".join(map(chr, tokens))


def test_endings_go_to_the_requests_that_they_belong_to() -> None:
    endings = AnswerEndings()
    asked = [("a", {"until": ["|"]}), ("b", {"until": ["|"]}), ("a", {"until": ["|"]})]
    rows = [[*map(ord, text)] for text in ("xyz", "x|yz", "x\x01z")]
    found = [ending_of(Tokenizer(), row, stops=["|", ""], ends=[1]) for row in rows]
    assert found == [Ending.CAP, Ending.STOP, Ending.TEXT]
    endings.note([AnswerEnd(ending=one) for one in found])
    for arguments in (asked[1], asked[0], asked[2]):  # the order of lm-eval's batches
        endings.add_partial("loglikelihood", arguments, (0.0, True))
        endings.add_partial("generate_until", arguments, "x")
    taken = [endings.take(arguments).ending for arguments in asked]
    assert taken == [Ending.STOP, Ending.CAP, Ending.TEXT]


def test_parts_count_by_their_questions() -> None:
    def part(n: int, length: float | None, cut_off: float | None) -> TaskScore:
        return TaskScore(task="t", value=0.5, stderr=0.1, n=n, length=length, cut_off=cut_off)

    whole = pooled([part(10, 8.0, 0.5), part(30, 4.0, 0.1), part(5, None, None)])
    assert whole.length == pytest.approx(5.0)
    assert whole.cut_off == pytest.approx(0.2)
    assert pooled([part(1, None, None), part(2, None, None)]).cut_off is None


def test_a_run_whose_answers_are_cut_off_warns(
    project: Project, command: Command, brief: Path, tiny_family: dict[str, Path]
) -> None:
    config = project(
        models={"brief": str(brief), "code": str(tiny_family["code"])},
        search={"trials": 6, "seed": 1, "sampler": "random", "learn": "off"},
        harness={"check_degenerate": False},
        held_out=0.4,
    )
    done = command("run", config)
    assert done.returncode == 0, done.stderr
    text = " ".join(done.stdout.split())
    warned = (
        r"write: \d+% of the answers of [\w' ]+ were cut off, 0% of those of parent 'brief', at"
    )
    assert re.search(warned, text)
    folder = config.parent / "mix"
    report = (folder / "leaderboard.md").read_text(encoding="utf-8")
    assert re.search(warned, " ".join(report.split()))
    found = json.loads((folder / "leaderboard.json").read_text(encoding="utf-8"))
    rows = {row["origin"]: row for row in found["candidates"]}
    assert rows["parent brief"]["cut_off:write"] == 0.0
    assert rows["parent code"]["cut_off:write"] > 0.9
    assert rows["parent code"]["length:write"] > 1.0
    assert "cut_off:pick" not in rows["parent code"]


def test_a_run_without_cut_off_answers_does_not(
    project: Project, command: Command, brief: Path, tmp_path: Path
) -> None:
    other = Path(shutil.copytree(brief, tmp_path / "other"))
    tensors = load_file(other / "model.safetensors")
    tensors["lm_head.weight"] *= 2
    save_file(tensors, other / "model.safetensors", metadata={"format": "pt"})
    config = project(
        base=None,
        models={"a": str(brief), "b": str(other)},
        search={"trials": 4, "seed": 1, "sampler": "random", "learn": "off"},
        harness={"check_degenerate": False},
    )
    done = command("run", config)
    assert done.returncode == 0, done.stderr
    assert "cut off" not in done.stdout
