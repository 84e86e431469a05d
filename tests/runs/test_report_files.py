from __future__ import annotations

import base64
import csv
import gzip
import io
import json
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import jsonschema
import pandas as pd
import pytest
from markdown_it import MarkdownIt

from evaluators.protocol import TaskInfo, TaskScore
from runs.output_files import replacing
from runs.ranking.finalists import Against, Entry, WinnerStanding
from runs.ranking.leaderboard import failures, leaderboard
from runs.ranking.verdict import verdict
from runs.records.record import Role
from runs.report import report_content as content
from runs.report.html.headline import headline
from runs.report.html.leaderboard_data import packed
from runs.report.learning_summary import LearningSummary, cost_words
from runs.report.report_files import (
    FORMATS,
    FormatError,
    Report,
    to_csv,
    to_html,
    to_json,
    to_markdown,
    write_report,
)
from runs.report.report_tables import score_text
from runs.statistics.resampling import Resampling
from spaces.recipes.recipe import Merge, Model, Recipe
from tests.runs.conftest import source

NASTY = "<script>alert(1)</script>"
SCRIPTS = ("data", "recipes", "plotly", "figures", "report")
VOID = {"meta", "link", "br", "hr", "img", "input"}


@pytest.fixture
def report(run_records, run_tasks) -> Report:
    def answers(right: int) -> dict[str, dict[str, float]]:
        return {"sort": {f"q{at}": float(at < right) for at in range(50)}}

    def asked(name: str, rank: int, role: Role, right: int | None) -> Entry:
        return Entry(
            name=name,
            role=role,
            rank=rank,
            search=(TaskScore(task="sort", value=0.9 - 0.1 * rank, stderr=0.05, n=50),),
            outcomes={} if right is None else answers(right),
        )

    return Report(
        title="Demo | run",
        frame=leaderboard(run_records, run_tasks),
        failures=failures(run_records),
        tasks=run_tasks,
        verdict=verdict(
            [
                asked("candidate 4", 1, Role.SEARCHED, 40),
                asked("plain average", 2, Role.AVERAGE, 30),
                asked("candidate 5", 3, Role.SEARCHED, 35),
                asked("parent code", 4, Role.PARENT, None),
                asked("parent math", 5, Role.PARENT, 20),
            ],
            tasks=run_tasks,
            how=Resampling(resamples=500),
        ),
        facts={
            "versions": {"merge-search": "0.1.0", "torch": "2.13.0"},
            "budget": {"trials": 300, "hours": None},
        },
        best_yaml="merge_method: ties\nnote: '<b>'\n",
        reproduce=("search export study.db", "search build best.yaml OUT"),
        config="base: ./base\nmodels: {math: ./math}\n",
    )


@pytest.fixture
def lesson() -> LearningSummary:
    sources = tuple(source(Model(name), weight=0.25) for name in ("math", "code"))
    merge = Merge(method="task_arithmetic", sources=sources, base=Model("base"))
    return LearningSummary(
        name="learned by layer",
        recipe=Recipe(root=merge),
        coefficients=2,
        steps=12,
        planned=12,
        losses=(1.0, 0.5),
        aside=((0, 0.9), (5, 0.4), (10, 0.4), (12, 0.6)),
        questions=1234,
        seconds=41.5,
        share=0.125,
        failed="",
    )


def test_learning_is_in_every_report_for_people_and_programs(
    report: Report, lesson: LearningSummary
) -> None:
    learned = replace(report, learning=(lesson,))
    row = "| learned by layer | 2 | 12 of 12 | 0.900 | 0.400 | 10 | 1,234 | 12 % | 42 |"
    assert f"{row} references |  |" in to_markdown(learned)
    taught = replace(lesson, targets="sums: 9 answers that parents got right")
    assert f"| 42 | {taught.targets} |  |" in to_markdown(replace(report, learning=(taught,)))
    assert taught.words() == f"{lesson.words()} ({taught.targets})"
    (found,) = json.loads(to_json(replace(report, learning=(taught,))))["learning"]
    assert found["targets"] == taught.targets
    (found,) = json.loads(to_json(learned))["learning"]
    assert found["aside"][1] == {"step": 5, "loss": 0.4}
    assert (found["chosen"], found["share"], found["losses"]) == (10, 0.125, [1.0, 0.5])
    schema = json.loads((Path(content.__file__).parent / "report.schema.json").read_text("utf-8"))
    jsonschema.validate(json.loads(to_json(learned)), schema)
    page = Page(to_html(learned))
    assert page.open == []
    assert {"1,234", "12 %"} <= set(page.texts)
    assert "Learning" not in Page(to_html(report)).texts
    assert cost_words((lesson, lesson)) == "2,468 questions (25 % of the budget), 83 s of work"


@pytest.fixture
def empty(run_tasks) -> Report:
    return Report(
        title="Empty", frame=leaderboard((), run_tasks), failures=failures(()), tasks=run_tasks
    )


class Page(HTMLParser):
    """Tags, attributes and texts; complains about tags that do not match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data) -> None:
        self.texts.append(data)


def test_markdown(report: Report, golden) -> None:
    golden("runs/leaderboard.md", to_markdown(report))


def test_csv(report: Report, golden) -> None:
    golden("runs/leaderboard.csv", to_csv(report))


def test_csv_reads_back(report: Report) -> None:
    rows = list(csv.DictReader(io.StringIO(to_csv(report))))
    assert len(rows) == len(report.frame)
    assert rows[0]["score"] == "0.5"
    assert rows[-1]["message"] == report.frame["message"].iloc[-1]
    assert rows[-1]["rank"] == ""


FORMULAS = ("=1+1", "+cmd", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "'=1", '=a","b', "plain -1")


def test_csv_holds_no_formula_and_reads_back(report: Report) -> None:
    frame = pd.concat([report.frame] * 2, ignore_index=True).head(len(FORMULAS))
    text = to_csv(replace(report, frame=frame.assign(message=list(FORMULAS), score=-0.5)))
    read = pd.read_csv(io.StringIO(text))
    assert read["score"].tolist() == [-0.5] * len(FORMULAS)  # numbers stay numbers
    cells = read["message"].tolist()
    assert not any(cell.startswith(tuple("=+-@\t\r")) for cell in cells)
    told = [value.replace("\r", "") for value in FORMULAS]
    assert [cell.removeprefix("'") for cell in cells] == told
    assert cells[-1] == "plain -1"


def test_csv_does_nothing_to_a_terminal(report: Report) -> None:
    text = to_csv(replace(report, frame=report.frame.assign(message="a\x1b[2Jb\nc")))
    assert "a[2Jb\nc" in text
    assert "\x1b" not in text


MARKUP = "</td>|<b>x</b>\n\n<div>[l](javascript:x)![i](http://e/x.png)`c`\\<i>~~s~~\x1b[2J"


def test_markdown_holds_no_markup_of_others(report: Report) -> None:
    """Rendered by CommonMark with HTML allowed, names and messages are text and nothing else."""
    nasty = TaskInfo(name=MARKUP, metric=MARKUP, higher_is_better=True, weight=1.0)
    frame = report.frame.rename(
        columns={
            f"{p}:sort": f"{p}:{MARKUP}"
            for p in ("task", "task_stderr", "held_out", "held_out_stderr")
        }
    )
    text = to_markdown(
        Report(
            title=MARKUP,
            notice=MARKUP,
            frame=frame.assign(method=MARKUP, origin="seed " + MARKUP),
            failures=report.failures.assign(message=MARKUP, worker=MARKUP),
            tasks=(nasty, report.tasks[1]),
            verdict=replace(report.verdict, sentence=MARKUP, notes=(MARKUP,)),
            facts={MARKUP: {MARKUP: MARKUP}},
            best_yaml=f"a: {MARKUP}",
            reproduce=(MARKUP,),
            config=MARKUP,
        )
    )
    reader = MarkdownIt("gfm-like", {"html": True, "linkify": False})
    tokens = [part for token in reader.parse(text) for part in (token.children or [token])]
    assert not {token.type for token in tokens} & {
        "html_inline", "html_block", "link_open", "image", "code_inline", "s_open",
    }  # fmt: skip
    outside = [token.content for token in tokens if token.type == "text"]
    assert not any("\x1b" in content for content in outside)
    assert not any("http://" in line for line in text.splitlines() if line.startswith("|"))


def test_json(report: Report, golden) -> None:
    golden("runs/leaderboard.json", to_json(report))
    data = json.loads(to_json(report), parse_constant=pytest.fail)
    assert data["columns"] == {name: str(kind) for name, kind in report.frame.dtypes.items()}
    assert [row["rank"] for row in data["candidates"]] == [1, 2, 3, 4, 5, None, None]
    assert data["candidates"][5]["score"] is None
    assert data["verdict"]["standing"] == "beats"
    assert data["verdict"]["missing"] == ["parent code"]
    winner, average, other, parent = data["verdict"]["finalists"]
    assert [one["rank"] for one in (winner, average, other, parent)] == [1, 2, 3, 5]
    assert winner["parents"]["best"] == "parent math"
    assert winner["gap"]["value"] == pytest.approx(0.0)
    assert other["parents"]["adjusted"] >= other["parents"]["p_value"]
    assert average["parents"] is None
    assert parent["defaults"] is None


def test_html_escapes_what_users_write(report: Report) -> None:
    nasty = TaskInfo(name=NASTY, metric='"><img src=x>', higher_is_better=True, weight=1.0)
    frame = report.frame.rename(
        columns={
            f"{p}:sort": f"{p}:{NASTY}"
            for p in ("task", "task_stderr", "held_out", "held_out_stderr")
        }
    )
    text = to_html(
        Report(
            title=f"</title>{NASTY}",
            notice=NASTY,
            frame=frame,
            failures=report.failures,
            tasks=(nasty, report.tasks[1]),
            verdict=report.verdict,
            facts={NASTY: {NASTY: NASTY}},
            best_yaml=f"</pre>{NASTY}",
            reproduce=(NASTY,),
        )
    )
    page = Page(text)
    assert page.open == []
    names = [tag for tag, _ in page.tags]
    assert not set(names) & {"img", "link", "iframe", "object", "b"}
    assert names.count("script") == len(SCRIPTS)
    # Column headers, tasks table, title, notice, facts, YAML, commands and a failure's message.
    assert sum(NASTY in part for part in page.texts) >= 10


def test_html_needs_nothing_else(report: Report) -> None:
    text = to_html(report)
    page = Page(text)
    assert page.open == []
    for tag, attributes in page.tags:
        assert not {"src", "onclick"} & set(attributes)
        assert tag != "link"
        assert str(attributes.get("href", "#")).startswith("#")
    (policy,) = [a["content"] for tag, a in page.tags if tag == "meta" and "http-equiv" in a]
    assert str(policy).startswith("default-src 'none'; script-src 'sha256-")
    own = text[: text.index('<script type="application/json"')]
    assert "url(" not in own
    assert "@import" not in own
    assert "prefers-color-scheme: dark" in own
    assert 'name="viewport"' in own
    tables = [tag for tag, _ in page.tags if tag == "table"]
    regions = [a for tag, a in page.tags if tag == "div" and a.get("class") == "scroll"]
    assert len(tables) == len(regions) == 5  # wide tables scroll inside their own box


@pytest.mark.parametrize(
    ("hours", "gpus", "tile"),
    [
        (0.0123, 0.0246, ("minutes", "0:44", "1.48 GPU-minutes")),
        (2.5, 5.0, ("hours", "2.50", "5.00 GPU-hours")),
    ],
)
def test_short_runs_took_minutes_and_seconds(
    report: Report, hours: float, gpus: float, tile: tuple[str, str, str]
) -> None:
    facts = {"run": {"hours": hours, "GPU-hours": gpus}}
    assert tile in headline(replace(report, facts=facts)).tiles


def test_data_cannot_end_its_script(report: Report) -> None:
    failures = report.failures.assign(message="</script><!--<script>")
    text = to_html(
        replace(report, frame=report.frame.assign(message="</script>"), failures=failures)
    )
    data = text.split('id="data">')[1].split("</script>")[0]
    assert json.loads(data)["board"]["more"]["message"][0] == "</script>"


def test_the_headline_names_the_outcome(report: Report) -> None:
    found = headline(report)
    assert found.mark == "✓"
    assert found.text == "Candidate 4 beats every compared parent and the plain average"
    assert [lead.over for lead in found.leads] == ["parent 'math'", "the plain average"]
    assert all(lead.zero < lead.low <= lead.value <= lead.high for lead in found.leads)


@pytest.mark.parametrize(
    ("parents", "average", "said"),
    [
        (WinnerStanding.BEATS, WinnerStanding.AHEAD,
         "beats every parent; it is ahead of the plain average too, but not beyond doubt"),
        (WinnerStanding.AHEAD, WinnerStanding.BEATS,
         "beats the plain average; it is ahead of every parent too, but not beyond doubt"),
        (WinnerStanding.AHEAD, WinnerStanding.AHEAD,
         "is ahead of every parent and the plain average, but not beyond doubt"),
        (WinnerStanding.BEATS, WinnerStanding.NOT_BETTER,
         "beats every parent, but is not better than the plain average"),
        (WinnerStanding.AHEAD, WinnerStanding.NOT_BETTER, "is not better than the plain average"),
        (WinnerStanding.NOT_BETTER, WinnerStanding.NOT_BETTER,
         "is not better than parent 'math' and the plain average"),
    ],
)  # fmt: skip
def test_the_headline_says_of_each_group_what_is_so(
    report: Report,
    monkeypatch: pytest.MonkeyPatch,
    parents: WinnerStanding,
    average: WinnerStanding,
    said: str,
) -> None:
    verdict = report.verdict
    assert verdict is not None
    first = verdict.finalists[0].parents
    monkeypatch.setattr(Against, "standing", lambda self, _: parents if self is first else average)
    judged = replace(verdict, standing=WinnerStanding.AHEAD, missing=())
    assert headline(replace(report, verdict=judged)).text == f"Candidate 4 {said}"


@pytest.mark.parametrize("given", ["report", "empty"])
def test_json_is_as_its_schema_says(given: str, request: pytest.FixtureRequest) -> None:
    schema = json.loads((Path(content.__file__).parent / "report.schema.json").read_text("utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    data = json.loads(to_json(request.getfixturevalue(given)))
    jsonschema.validate(data, schema)
    assert set(data) == set(schema["properties"])


def test_the_front_is_marked(report: Report) -> None:
    front = pd.array([True, False, *[pd.NA] * (len(report.frame) - 2)], dtype="boolean")
    marked = replace(report, frame=report.frame.assign(front=front))
    assert "| 1 | yes |" in to_markdown(marked)
    assert "| 2 |  |" in to_markdown(marked)
    assert '"cells":["yes","",' in to_html(marked)


def test_long_leaderboards_are_cut_in_markdown_only(report: Report) -> None:
    many = pd.concat([report.frame.iloc[[0]]] * 80 + [report.frame.iloc[[4]]], ignore_index=True)
    text = to_markdown(replace(report, frame=many))
    assert text.count("| candidate") + text.count("| surrogate") + text.count("| tpe |") >= 50
    assert "parent math" in text
    assert "30 more are in the other formats." in text


def test_html_says_it_all(report: Report) -> None:
    text = " ".join(" ".join(Page(to_html(report)).texts).split())
    assert "Candidate 4 beats every compared parent and the plain average" in text
    assert "Verdict: the winner beats every compared parent: +0.400 over the best, parent" in text
    assert "; it beats the plain average: +0.200 (95 % interval" in text
    assert "The winner's search score is 0.000 above its held-out score" in text
    assert "0.800 (0.670 to 0.888)" in text  # Wilson's interval for 40 of 50
    assert "0.500 ± 0.050" in text
    assert "loss ↓" in text
    assert "5 scored, 2 failures." in text
    assert "lost_worker" in text
    assert "merge_method: ties" in text
    assert "search build best.yaml OUT" in text
    assert "2.13.0" in text


@pytest.mark.parametrize("render", [to_markdown, to_html])
def test_a_run_without_candidates(empty: Report, render: Callable[[Report], str]) -> None:
    text = render(empty)
    assert "No candidate has been scored yet." in text
    assert "Failures" not in text
    assert "Best recipe" not in text


def test_notice_goes_on_top(empty: Report) -> None:
    noticed = replace(empty, notice="Made-up scores (dry run)")
    assert to_markdown(noticed).splitlines()[2] == "> **Made-up scores (dry run)**"
    assert '<p class="notice"><strong>Made-up scores (dry run)</strong></p>' in to_html(noticed)


def test_a_recipe_cannot_leave_its_code_block(empty: Report) -> None:
    text = to_markdown(replace(empty, best_yaml="a: |\n  ```\n  # not a heading\n"))
    assert "````yaml\na: |\n  ```\n  # not a heading\n````\n" in text


def test_write_all(report: Report, tmp_path: Path) -> None:
    out = tmp_path / "new" / "folder"
    written = write_report(report, out)
    assert written == [out / kind.file for kind in FORMATS.values()]
    assert sorted(path.name for path in out.iterdir()) == sorted(path.name for path in written)
    pd.testing.assert_frame_equal(
        pd.read_parquet(out / "leaderboard.parquet"), report.frame, check_dtype=True
    )
    assert (out / "leaderboard.csv").read_text(encoding="utf-8") == to_csv(report)


def test_write_some_replaces_older_ones(report: Report, empty: Report, tmp_path: Path) -> None:
    write_report(empty, tmp_path, ("csv",))
    assert write_report(report, tmp_path, ("csv", "csv")) == [tmp_path / "leaderboard.csv"]
    assert (tmp_path / "leaderboard.csv").read_text(encoding="utf-8") == to_csv(report)
    assert [path.name for path in tmp_path.iterdir()] == ["leaderboard.csv"]


def test_unknown_format(report: Report, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"format: expected one of html, .*, got 'xlsx'"):
        write_report(report, tmp_path, ("csv", "xlsx"))
    assert list(tmp_path.iterdir()) == []


def test_an_empty_report_survives_every_format(empty: Report, tmp_path: Path) -> None:
    write_report(empty, tmp_path)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "leaderboard.parquet"), empty.frame)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_text("old")

    def write() -> None:
        with replacing(path) as draft:
            draft.write_text("half")
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        write()
    assert path.read_text() == "old"
    assert [item.name for item in tmp_path.iterdir()] == ["x.txt"]


@pytest.mark.parametrize(
    ("value", "stderr", "expected"),
    [
        (0.68349, 0.0213, "0.683 ± 0.021"),
        (-0.5, float("nan"), "-0.500"),
        (float("nan"), 0.1, ""),
        (1234.56, 7.89, "1234.6 ± 7.9"),
    ],
)
def test_score_text(value: float, stderr: float, expected: str) -> None:
    assert score_text(value, stderr) == expected


def test_a_lone_surrogate_in_a_text_is_no_reason_to_lose_the_page() -> None:
    data = {"prompt": "lone \ud800 here"}
    assert json.loads(gzip.decompress(base64.b64decode(packed(data)))) == data
