"""What a run found: is the winner better than what it was made of, and than what is tried by hand?

The winner is chosen by search data alone, so the held-out questions test one recipe that was named
beforehand: no correction for the number of finalists is due.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from evaluators.protocol import Catalogue, Outcome, TaskInfo, TaskScore
from runs.ranking.finalists import Against, Entry, Finalist, WinnerStanding, finalists
from runs.ranking.floor_verdict import FloorFound, floors_found, keeping_words, unkept
from runs.ranking.floors import broken_text
from runs.ranking.leaderboard import ranked, unmarked, written
from runs.ranking.specialists import OnTask, on_tasks
from runs.ranking.verdict_text import Story, p_words, title
from runs.records.record import Record, Role, Split, role_of
from runs.statistics.comparisons import ALONE, Comparison, Documents, by_task, paired
from runs.statistics.resampling import DEFAULT, Resampling

CUT_OFF = 0.05
"""Share of answers cut off or in a loop, and difference between shares, above which it is told."""

_WORST_FIRST = (WinnerStanding.NOT_BETTER, WinnerStanding.AHEAD, WinnerStanding.BEATS)


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """The winner against the parents, the plain average and the default recipes.

    Attributes:
        standing: The outcome against all of them together.
        sentence: The outcome for people, with the numbers; starts in lower case, no full stop.
        notes: Further sentences: how much the search score flatters, and finalists that beat the
            parents where the winner does not.
        winner: Name of the winner.
        finalists: Everyone who was asked, the winner first, then by rank.
        on_tasks: The winner against the specialist of each task.
        comparisons: Winner minus each of the others by name, parents first.
        missing: Parents, average and default recipes that have no outcomes to compare with.
        confidence: Coverage of the intervals.
        floors: The winner at every floor.
    """

    standing: WinnerStanding
    sentence: str
    notes: tuple[str, ...]
    winner: str
    finalists: tuple[Finalist, ...]
    on_tasks: tuple[OnTask, ...]
    comparisons: Mapping[str, Comparison]
    missing: tuple[str, ...]
    confidence: float
    floors: tuple[FloorFound, ...] = ()

    @property
    def best_parent(self) -> str | None:
        """The parent that does best on these questions; ``None`` if none was compared."""
        parents = self.finalists[0].parents
        return None if parents is None else parents.best


def verdict(
    entries: Sequence[Entry],
    *,
    tasks: Sequence[TaskInfo],
    documents: Documents = ALONE,
    questions: str = "held-out",
    how: Resampling = DEFAULT,
) -> Verdict:
    """Compare a winner and the other finalists with parents, average and default recipes.

    Args:
        entries: Ranked candidates, best first, then those without a search score; at least one.
            The first is the winner.
        tasks: Weights and directions.
        documents: What the questions are about.
        questions: What to call the questions in the sentence.
        how: Confidence, number of resamples and seed.
    """
    found = finalists(entries, tasks=tasks, documents=documents, how=how)
    winner = found[0]
    by_task = _by_task(found, entries, tasks, documents, how)
    compared = {n: item for group in _groups(winner) for n, item in group.comparisons.items()}
    missing = [
        entry
        for entry in entries[1:]
        if entry.role not in (Role.SEARCHED, Role.BASE) and entry.name not in compared
    ]
    compared |= _others(entries, compared, tasks, documents, how)
    standing = _standing(winner, how.confidence)
    story = Story(
        finalists=found,
        on_tasks=by_task,
        missing=tuple(missing),
        questions=questions,
        confidence=how.confidence,
    )
    floors = floors_found(entries, tasks=tasks, documents=documents, how=how)
    before, after = keeping_words(floors, how.confidence)
    return Verdict(
        standing=standing,
        sentence=f"{before}{story.sentence(standing)}{after}",
        floors=floors,
        notes=story.notes(),
        winner=winner.name,
        finalists=found,
        on_tasks=by_task[winner.name],
        comparisons=compared,
        missing=tuple(entry.name for entry in missing),
        confidence=how.confidence,
    )


def _by_task(
    found: Sequence[Finalist],
    entries: Sequence[Entry],
    tasks: Sequence[TaskInfo],
    documents: Documents,
    how: Resampling,
) -> dict[str, tuple[OnTask, ...]]:
    """The winner, and every finalist that may be said to beat the parents, task by task, by name.

    The others share the error rate: one of them is picked by its held-out score.
    """
    by_name = {entry.name: entry for entry in entries}
    count = sum(one.parents is not None for one in found)
    rows = {}
    for one in found:
        if one is not found[0] and not (
            one.parents and one.parents.beats_after_correction(how.confidence)
        ):
            continue
        confidence = how.confidence if one is found[0] else 1 - (1 - how.confidence) / count
        first = by_name[one.name]
        rows[one.name] = on_tasks(
            [first, *(entry for entry in entries if entry is not first)],
            tasks=tasks,
            documents=documents,
            how=replace(how, confidence=confidence),
        )
    return rows


def _others(
    entries: Sequence[Entry],
    known: Mapping[str, Comparison],
    tasks: Sequence[TaskInfo],
    documents: Documents,
    how: Resampling,
) -> dict[str, Comparison]:
    """Winner minus those that it does not have to beat: the base; parents where it is one."""
    winner = entries[0]
    asked = [task for task in tasks if task.name in winner.outcomes]
    found = {
        entry.name: paired(winner.outcomes, entry.outcomes, asked, documents=documents, how=how)
        for entry in entries[1:]
        if entry.role in (Role.PARENT, Role.BASE) and entry.name not in known
    }
    return {name: item for name, item in found.items() if item.difference.n}


def judge(
    records: Sequence[Record],
    outcomes: Mapping[int, Sequence[Outcome]],
    catalogue: Catalogue,
    *,
    questions: str = "held-out",
    looks: int = 1,
    how: Resampling = DEFAULT,
) -> Verdict | None:
    """The verdict of a run.

    Args:
        records: All candidates; the winner is the one that ranks first by search data.
        outcomes: Outcomes on the questions to judge by, by candidate id.
        catalogue: The run's tasks and questions.
        questions: What to call the questions in the sentence.
        looks: How many verdicts these answers have given by now, this one included.
        how: Confidence, number of resamples and seed.

    Returns:
        The verdict, or ``None`` where no candidate has a score.
    """
    order = ranked(records)
    if not order:
        return None
    places = {record.id: place for place, record in enumerate(order, start=1)}
    others = [record for record in records if record.id not in places]
    entries = [
        _entry(record, places.get(record.id), outcomes.get(record.id, ()), catalogue)
        for record in (*order, *others)
    ]
    found = verdict(
        entries,
        tasks=catalogue.tasks,
        documents=catalogue.documents(),
        questions=questions,
        how=how,
    )
    winner = order[0]
    notes = (*unkept(winner.shortfall, broken_text(winner)), *_looked(found, looks))
    return replace(
        found, notes=(*found.notes, *notes, *_unmarked(records), *_ended(records, found))
    )


def _looked(found: Verdict, looks: int) -> list[str]:
    """A sentence where the same questions have decided before: each look may be luck."""
    if looks < 2:
        return []
    text = (
        f"This is verdict {looks} on the same held-out questions: the "
        f"chance that one of them claims a win where there is none is up to {looks} times as large"
    )
    parents = found.finalists[0].parents
    if parents is None:
        return [f"{text}."]
    p_value = min(1.0, looks * parents.p_value)
    return [f"{text} (corrected for it, {p_words(p_value)} against the parents)."]


def _ended(records: Sequence[Record], found: Verdict) -> list[str]:
    """What is to be said of how the answers of those compared ended."""
    compared = {one.name for one in found.finalists}
    return ending_notes(
        {name_of(record): written(record) for record in records if name_of(record) in compared}
    )


def ending_notes(scores: Mapping[str, Mapping[str, TaskScore]]) -> list[str]:
    """A sentence for each task in which how answers ended may have decided what is compared."""
    tasks = dict.fromkeys(task for by_task in scores.values() for task in by_task)
    lines = []
    for task in tasks:
        asked = {name: by_task[task] for name, by_task in scores.items() if task in by_task}
        cut_off = {name: one.cut_off for name, one in asked.items() if one.cut_off is not None}
        if words := _shares_words(cut_off, "were cut off"):
            lines.append(
                f"{task}: {words}, at the most tokens allowed: what is compared there may be the "
                "length of answers. With more room (max_gen_toks in harness.gen_kwargs) the order "
                "may be another."
            )
        looped = {name: one.looped for name, one in asked.items() if one.looped is not None}
        if words := _shares_words(looped, "repeat themselves to the end"):
            lines.append(f"{task}: {words}; they are marked as they stand.")
    return lines


def _shares_words(shares: Mapping[str, float], happened: str) -> str:
    """Whose answers have had most of something, and whose least; empty where it is rare."""
    if not shares:
        return ""
    least, most = (choose(shares, key=shares.__getitem__) for choose in (min, max))
    if shares[most] <= CUT_OFF:
        return ""
    text = f"{shares[most]:.0%} of the answers of {title(most)} {happened}"
    if shares[most] - shares[least] > CUT_OFF:
        text += f", {shares[least]:.0%} of those of {title(least)}"
    return text


def _unmarked(records: Sequence[Record]) -> list[str]:
    """A sentence where the tasks left out their metric for some answers."""
    counts = [count for record in records if (count := unmarked(record))]
    if not counts:
        return []
    return [
        f"The tasks gave no value for some answers: of {len(counts)} of {len(records)} candidates, "
        f"for up to {max(counts)} questions of one. These count in no score, and candidates are "
        "compared on questions with a value for both."
    ]


def name_of(record: Record) -> str:
    """What a verdict calls a candidate: by number where it was searched, else by its origin."""
    searched = role_of(record.origin) is Role.SEARCHED
    return f"candidate {record.id}" if searched else record.origin


def _entry(
    record: Record, rank: int | None, outcomes: Sequence[Outcome], catalogue: Catalogue
) -> Entry:
    role = role_of(record.origin)
    search = record.evaluations.get(Split.SEARCH)
    return Entry(
        name=name_of(record),
        role=role,
        rank=rank,
        search=() if search is None else search.tasks,
        expected={
            task.name: record.objectives[task.name].value
            for task in catalogue.tasks
            if task.name in record.objectives
        },
        outcomes=by_task(outcomes, catalogue),
    )


def _groups(winner: Finalist) -> list[Against]:
    return [group for group in (winner.parents, winner.defaults) if group is not None]


def _standing(winner: Finalist, confidence: float) -> WinnerStanding:
    if winner.role is not Role.SEARCHED:
        return WinnerStanding.BASELINE
    found = {group.standing(confidence) for group in _groups(winner)}
    return next(
        (standing for standing in _WORST_FIRST if standing in found), WinnerStanding.UNKNOWN
    )
