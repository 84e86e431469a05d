"""The answers that a page holds: the first candidates', as many as there is room for."""

from __future__ import annotations

import base64
import gzip
import json
import random

from evaluators.protocol import Question, QuestionText, TaskInfo
from runs.records.answer_book import AnswerBook, AnswerSheet
from runs.report.html.leaderboard_data import answers, packed

TASKS = (
    TaskInfo(name="a", metric="acc,none", higher_is_better=True, weight=1.0),
    TaskInfo(name="b", metric="loss,none", higher_is_better=False, weight=1.0),
)
SOME = tuple(Question(id=f"{task.name}/{n}", task=task.name, position=n) for task in TASKS
             for n in range(2))  # fmt: skip


def sheet(candidate: int, texts: dict[str, str]) -> AnswerSheet:
    values = dict.fromkeys(texts, 1.0)
    return AnswerSheet(candidate=candidate, name=f"no {candidate}", values=values, texts=texts)


def test_answers_stand_in_the_order_of_the_questions() -> None:
    book = AnswerBook(
        tasks=TASKS,
        questions=SOME,
        held_out=frozenset({"a/1"}),
        said={"b/0": QuestionText(prompt="p", expected="e", choices=("e", "f"))},
        sheets=(sheet(7, {"b/1": "x", "a/1": "</script>"}),),
        left_out=3,
    )
    found = json.loads(gzip.decompress(base64.b64decode(packed(answers(book)))))
    assert found == {
        "tasks": [["a", True], ["b", False]],
        "questions": [
            [0, 0, "", "", []], [0, 1, "", "", []], [1, 0, "p", "e", ["e", "f"]], [1, 0, "", "", []]
        ],
        "sheets": [
            {
                "candidate": 7,
                "name": "no 7",
                "values": [None, 1, None, 1],
                "texts": [None, "</script>", None, "x"],
            }
        ],
        "left": 3,
    }  # fmt: skip


def test_a_page_has_answers_of_three_megabytes_at_most() -> None:
    some = random.Random(0)
    questions = tuple(Question(id=f"a/{n}", task="a", position=n) for n in range(400))
    sheets = tuple(
        sheet(number, {one.id: some.randbytes(300).hex() for one in questions})
        for number in range(40)
    )
    book = AnswerBook(
        tasks=TASKS, questions=questions, held_out=frozenset(), said={}, sheets=sheets, left_out=5
    )
    found = answers(book)
    assert 2_000_000 < len(packed(found)) < 3_000_000
    kept = [one["candidate"] for one in found["sheets"]]
    assert kept == [one.candidate for one in sheets[: len(kept)]]
    assert 2 < len(kept) < 40
    assert found["left"] == 45 - len(kept)
