"""Two candidates of a study, question by question."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import pytest

from runs.records.record import Split
from runs.statistics.comparisons import by_task, paired
from runs.storage.store import Store
from search.engine.trials.held_out_looks import is_judged
from search.inputs.stored_study.study_config import config_of
from search.monitoring.run_verdict import judge_run
from search.monitoring.study_report import make_report
from search.samplers.estimation.posterior import judged
from tests.browser.conftest import NASTY, make_study
from tests.command import search


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_study(tmp_path_factory.mktemp("compared"), trials=12)


@pytest.fixture
def store(finished: Path) -> Iterator[Store]:
    with Store.open(str(finished)) as found:
        yield found


@pytest.fixture
def unjudged(finished: Path, tmp_path: Path) -> Path:
    """The same study as it was before the end of its final check."""
    path = Path(shutil.copy(finished, tmp_path / "study.db"))
    with Store.open(str(path)) as store:
        store.hold()
        assert is_judged(store)
        store.set_fact("looks", json.dumps({"verdicts": []}))
    return path


def told(*arguments: object) -> dict:
    done = search("compare", *arguments, "--json")
    assert done.code == 0, done.err
    return json.loads(done.out)


def test_the_interval_is_the_one_of_the_verdict(finished: Path, store: Store) -> None:
    found = told(finished, "best", "code")
    assert (found["format"], found["command"], found["questions"]) == (1, "compare", "held-out")
    verdict = judge_run(store, judged(store))
    expected = verdict.comparisons["parent code"].difference
    assert found["a"]["name"] == verdict.winner
    assert found["b"]["name"] == "parent code"
    assert found["difference"] == asdict(expected)


def test_every_question_is_counted_once_and_shown_with_both_answers(
    finished: Path, store: Store
) -> None:
    found = told(finished, "best", "code", "--all", "--questions", "search")
    catalogue = store.manifest.catalogue
    numbers = [found[letter]["candidate"] for letter in "ab"]
    ours, theirs = (by_task(store.outcomes(one, Split.SEARCH), catalogue) for one in numbers)
    answers = [store.answer_texts(one, Split.SEARCH) for one in numbers]
    said = store.question_texts()
    comparison = paired(ours, theirs, catalogue.tasks, documents=catalogue.documents())
    for task in found["tasks"]:
        a, b = ours[task["task"]], theirs[task["task"]]
        pairs = [(a[name], b[name]) for name in a.keys() & b.keys()]
        names = ("both_right", "only_a", "only_b", "both_wrong")
        for name, pair in zip(names, ((1, 1), (1, 0), (0, 1), (0, 0)), strict=True):
            assert task[name] == pairs.count(pair), name
        assert task["questions"] == len(pairs)
        assert task["difference"]["low"] == comparison.tasks[task["task"]].low
    assert len(found["shown"]) == sum(task["questions"] for task in found["tasks"])
    for one in found["shown"]:
        name = one["question"]
        assert one["prompt"] == said[name].prompt
        assert one["expected"] == said[name].expected
        assert [one["a"]["text"], one["b"]["text"]] == [texts[name] for texts in answers]
        for letter in "ab":
            assert (one[letter]["text"] == one["expected"]) == (one[letter]["value"] == 1.0)
        values = one["a"]["value"] - one["b"]["value"]
        assert one["better"] == {1.0: "a", -1.0: "b", 0.0: None}[values]


def test_questions_are_filtered(finished: Path) -> None:
    flipped = told(finished, "best", "code")["shown"]
    assert all(one["better"] for one in flipped)
    named = told(finished, "best", "code", "--task", NASTY)["shown"]
    assert 0 < len(named) < len(flipped)
    assert named == [one for one in flipped if one["task"] == NASTY]
    word = flipped[0]["b"]["text"].upper()
    assert flipped[0] in told(finished, "best", "code", "--find", word)["shown"]
    assert told(finished, "best", "code", "--find", "no such thing")["shown"] == []
    none = search("compare", finished, "best", "code", "--find", "no such thing").out
    assert f"None of the {len(flipped)} questions on which one is better contains 'no such" in none
    said = search("compare", finished, "best", "code", "--most", 1).out
    assert said.count("expected ") == 1
    assert f"1 of {len(flipped)} questions" in said


def test_a_candidate_is_not_compared_with_itself(finished: Path) -> None:
    done = search("compare", finished, "code", "parent code")
    assert (done.code, len(done.lines)) == (2, 1)
    assert "expected two candidates, got" in done.err


def test_candidates_are_called_as_people_call_them(finished: Path, store: Store) -> None:
    records = judged(store)
    base = next(one for one in records if one.origin == "base")
    for name in ("base", base.id, f"candidate {base.id}"):
        assert told(finished, "plain average", name)["b"]["candidate"] == base.id
    failed = search("compare", finished, "best", "nobody")
    assert failed.code == 2
    assert failed.err.startswith("search: error: candidate: expected best, a number from 0 to ")
    assert "code" in failed.err
    assert search("compare", finished, "best", "code", "--task", "three").code == 2
    assert search("compare", finished, "best", "code", "--questions", "all").code == 2


def test_held_out_answers_are_shown_after_the_final_check_only(
    finished: Path, unjudged: Path, store: Store
) -> None:
    held_out = set(store.manifest.questions.held_out)
    before = told(unjudged, "best", "code", "--all")
    assert before["questions"] == "search"
    assert not held_out & {one["question"] for one in before["shown"]}
    asked = search("compare", unjudged, "best", "code", "--questions", "held-out")
    assert asked.code == 2
    assert "after the final check" in asked.err
    after = told(finished, "best", "code", "--all")
    assert {one["question"] for one in after["shown"]} == held_out
    with Store.open(str(unjudged)) as early:
        page = make_report(early, config_of(early)).details.answers
    assert len(page.sheets) > 2
    assert not held_out & {one.id for one in page.questions}
    assert not any(held_out & {*one.values, *one.texts} for one in page.sheets)
    page = make_report(store, config_of(store)).details.answers
    assert held_out < {one.id for one in page.questions}


def drop_texts(path: Path) -> None:
    """Make a study one of an earlier version."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TABLE merge_search_question_text")
        connection.execute("DROP TABLE merge_search_answer_text")


def test_an_earlier_study_keeps_texts_once_it_is_resumed(
    tmp_path: Path, tiny_family: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    models = {name: str(tiny_family[name]) for name in ("math", "code")}
    config = {"base": str(tiny_family["base"]), "models": models, "tasks": ["one"],
              "search": {"trials": 8, "sampler": "random"}, "workers": {"ray": False}}  # fmt: skip
    (tmp_path / "mix.yaml").write_text(json.dumps(config))
    assert search("run", "mix.yaml", "--dry-run", "-q").code == 0
    with Store.open("mix/study.db") as store:
        said, answered = store.question_texts(), store.answered_in_words()
    assert said
    assert answered == {*range(8)}
    drop_texts(Path("mix/study.db"))
    assert search("resume", "mix", "--trials", 10, "-q").code == 0
    with Store.open("mix/study.db") as store:
        assert store.question_texts() == said
        assert {8, 9} <= store.answered_in_words()


def test_a_study_without_texts_is_compared_by_values(finished: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(finished, tmp_path / "study.db"))
    drop_texts(path)
    found = told(path, "best", "code")
    assert {one["a"]["text"] for one in found["shown"]} == {""}
    assert found["difference"] == told(finished, "best", "code")["difference"]
    with Store.open(str(path)) as store:
        assert make_report(store, config_of(store)).details.answers is None
    said = search("compare", path, "best", "code").out
    assert "The study keeps no texts of these answers" in said
