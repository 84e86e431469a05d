"""What the page's scripts show: the leaderboard's cells and sort keys, recipes, answers."""

from __future__ import annotations

import base64
import gzip
import json
import math
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from evaluators.protocol import QuestionText, TaskInfo
from runs.ranking.leaderboard import ranked
from runs.records.answer_book import AnswerBook, AnswerSheet
from runs.records.record import Record, Role, role_of
from runs.report.html.figure import Json, rounded
from runs.report.report_tables import (
    score_text,
    seconds_text,
    shares,
    task_title,
    texts,
    yes,
)

KINDS = {
    Role.SEARCHED: "searched",
    Role.DEFAULT: "default",
    Role.OWN: "yours",
    Role.AVERAGE: "average",
    Role.PARENT: "parent",
    Role.BASE: "base",
}
"""What the page calls each role."""

MOST_RECIPES = 1000
"""Recipes whose YAML is in the page: the best ones, and all that did not come from a sampler."""

MOST_ANSWERS = 2_200_000
"""Compressed bytes that answers may take in the page."""


def board(frame: pd.DataFrame, tasks: Sequence[TaskInfo]) -> Json:
    """All candidates by rank, then those under way, then failed ones.

    Returns:
        ``columns`` with ``name``, ``help``, ``numeric``, ``cells`` and, for numbers, ``keys``;
        ``method``, ``kind`` and ``state`` by row to filter by; ``more``: what only the drawer
        shows, by name.
    """
    columns = [
        {"name": name, "help": words, "numeric": keys is not None, "cells": cells}
        | ({} if keys is None else {"keys": keys})
        for name, words, cells, keys in _columns(frame, tasks)
    ]
    return {
        "columns": columns,
        "rank": [None if pd.isna(rank) else int(rank) for rank in frame["rank"]],
        "candidate": [int(number) for number in frame["candidate"]],
        "method": list(frame["method"]),
        "kind": [KINDS[role_of(origin)] for origin in frame["origin"]],
        "state": list(frame["state"]),
        "more": {name: cells for name, cells in _more(frame, tasks) if any(cells)},
    }


def _columns(
    frame: pd.DataFrame, tasks: Sequence[TaskInfo]
) -> Iterator[tuple[str, str, list[str], list[float | None] | None]]:
    """Name, explanation, cells and sort keys of each column that has anything to show."""
    yield "#", "Rank by search data", texts(frame["rank"]), _keys(frame["rank"])
    if "broken" in frame:
        words = "Floors it is expected to break, and by how much; those without rank first"
        yield "below floor", words, texts(frame["broken"]), None
    pairs = [
        ("expected", "expected", "expected_stderr",
         "Score estimated from all results, with its standard deviation; ranks use it minus one "
         "standard deviation"),
    ]  # fmt: skip
    yield from _scores(frame, pairs)
    words = "Merge method; + joins the methods of a merge tree"
    yield "method", words, texts(frame["method"]), None
    yield "origin", "Where the recipe comes from", texts(frame["origin"]), None
    pairs = [
        ("score", "score", "stderr", "On the search questions it was asked, ± standard error"),
        ("held-out", "held_out", "held_out_stderr", "On the held-out questions; ranks ignore it"),
    ]  # fmt: skip
    pairs += [
        (task_title(task), f"task:{task.name}", f"task_stderr:{task.name}",
         f"{task.metric} on the search questions, ± standard error")
        for task in tasks
    ]  # fmt: skip
    pairs.append(
        ("answer length", "answer_length", "answer_length_stderr",
         "Mean length of its answers to search questions in characters, ± standard error")
    )  # fmt: skip
    yield from _scores(frame, pairs)
    sizes = frame["parameters"]
    if sizes.nunique() > 1:  # it says nothing where all have the same
        cells = ["" if pd.isna(size) else f"{size:,}" for size in sizes]
        yield "parameters", "Number of parameters of the model", cells, _keys(sizes)
    if frame["front"].notna().any():
        words = "On the Pareto front of the objectives"
        yield "front", words, yes(frame["front"]), None
    asked = frame["questions"]
    yield "questions", "Search questions answered", texts(asked), _keys(asked)
    yield "id", "Number of the candidate", texts(frame["candidate"]), _keys(frame["candidate"])


def _scores(
    frame: pd.DataFrame, pairs: Sequence[tuple[str, str, str, str]]
) -> Iterator[tuple[str, str, list[str], list[float | None]]]:
    """The columns of ``_columns`` with values and their errors: name, both columns, explanation."""
    for name, value, stderr, words in pairs:
        if frame[value].notna().any() or name == "score":
            cells = [
                score_text(float(one), float(error))
                for one, error in zip(frame[value], frame[stderr], strict=True)
            ]
            yield name, words, cells, _keys(frame[value])


def _more(frame: pd.DataFrame, tasks: Sequence[TaskInfo]) -> Iterator[tuple[str, list[str]]]:
    for task in tasks:
        values, errors = frame[f"held_out:{task.name}"], frame[f"held_out_stderr:{task.name}"]
        yield (
            f"held-out {task_title(task)}",
            [score_text(float(a), float(b)) for a, b in zip(values, errors, strict=True)],
        )
        if task.written:
            lengths = [score_text(float(one)) for one in frame[f"length:{task.name}"]]
            yield f"answer length {task_title(task)}, characters", lengths
            cut_off = shares(frame[f"cut_off:{task.name}"])
            yield f"cut off {task_title(task)}, at the most tokens allowed", cut_off
            looped = shares(frame[f"looped:{task.name}"])
            yield f"looping {task_title(task)}, the same words again and again", looped
    yield "build, seconds", [seconds_text(value) for value in frame["build_seconds"]]
    yield "scoring, seconds", [seconds_text(value) for value in frame["score_seconds"]]
    names = {"worker": "worker", "trial": "Optuna trial", "key": "recipe key"}
    names |= {"fingerprint": "fingerprint", "failure": "failure", "message": "message"}
    for column, name in names.items():
        yield name, texts(frame[column])


def _keys(values: pd.Series[Any]) -> list[float | None]:
    return rounded([math.nan if pd.isna(value) else float(value) for value in values])


def recipes(records: Sequence[Record], recipe: Callable[[Record], str]) -> Mapping[str, str]:
    """Recipes as YAML by the candidate's id: those that people are likely to open."""
    order = ranked(records)
    first = [record for record in records if role_of(record.origin) is not Role.SEARCHED]
    rest = [record for record in records if record not in order] if len(records) < 500 else []
    kept = {record.id: record for record in (*first, *order[:MOST_RECIPES], *rest)}
    return {str(number): recipe(record) for number, record in kept.items()}


def answers(book: AnswerBook) -> Json:
    """The answers of the first candidates of a book, as many as the page has room for.

    Returns:
        ``tasks`` with name and direction; ``questions`` with the number of their task, whether they
        are held out, prompt, right answer and choices; ``sheets`` by candidate: ``values`` and
        ``texts`` in the order of the questions, ``null`` where there is none; ``left``: how many
        candidates with kept answers have no sheet.
    """
    number = {task.name: at for at, task in enumerate(book.tasks)}
    questions = []
    for one in book.questions:
        said = book.said.get(one.id, QuestionText())
        texts = (said.prompt, said.expected, list(said.choices))
        questions.append([number[one.task], int(one.id in book.held_out), *texts])
    sheets, room = list[Json](), MOST_ANSWERS - _size(questions)
    for sheet in book.sheets:
        row = _sheet(sheet, book)
        room -= _size(row)
        if room < 0:
            break
        sheets.append(row)
    return {
        "tasks": [[task.name, task.higher_is_better] for task in book.tasks],
        "questions": questions,
        "sheets": sheets,
        "left": book.left_out + len(book.sheets) - len(sheets),
    }


def _sheet(sheet: AnswerSheet, book: AnswerBook) -> Json:
    names = [one.id for one in book.questions]
    return {
        "candidate": sheet.candidate,
        "name": sheet.name,
        "values": rounded([sheet.values.get(name, math.nan) for name in names]),
        "texts": [sheet.texts.get(name) for name in names],
    }


def _size(data: Any) -> int:
    return len(zlib.compress(json.dumps(data).encode("ascii"), 6))


def packed(data: Any) -> str:
    """JSON, deflated and in base64: recipes of one run have most of their text in common."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    # A lone surrogate, which UTF-8 has no bytes for, is written as JSON's own escape.
    found = text.encode("utf-8", "backslashreplace")
    return base64.b64encode(gzip.compress(found, 6, mtime=0)).decode("ascii")
