"""What a machine knows of a process that died, and what is said of it."""

from pathlib import Path

import pytest

from evaluators.protocol import Candidate, EvaluatorError, FailureKind
from evaluators.workers.cluster.cluster_access import asks_for_token, knock, no_token
from evaluators.workers.cluster.node_census import NodeCensus
from evaluators.workers.cluster.ray_cluster import Answer, Trouble
from evaluators.workers.scheduling.worker_slots import SubmittedCandidate, loss_of
from evaluators.workers.worker_deaths import Death, Vitals, death_of, ending_of
from spaces.recipes.recipe import Merge, Model, Recipe, Source, parameters

SOURCE = Source(of=Model("a"), parameters=parameters(weight=1.0))
RECIPE = Recipe(root=Merge(method="linear", sources=(SOURCE,)))

CAUSES = "Some common causes include: (1) the OOM killer, (2) ray stop, or (3) SIGSEGV or another"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Worker exit detail: Worker exits with an exit code 1. It receives a SIGTERM.", "SIGTERM"),
        ("Worker exit detail: Worker exits with an exit code 3.", "exit code 3"),
        (f"Worker exit detail: Worker unexpectedly exits, code 2. End of file. {CAUSES}", ""),
        ("", ""),
    ],
)
def test_how_ray_says_that_it_ended(text: str, expected: str) -> None:
    assert ending_of(text) == expected


def test_a_fault_that_was_written_down(tmp_path: Path) -> None:
    log = tmp_path / "worker.err"
    log.write_text(":actor_name:Worker\nFatal Python error: Bus error\n\nThread 1:\n")
    counter = tmp_path / "vmstat"
    counter.write_text("nr_free 1\noom_kill 4\n")
    vitals = Vitals(log=str(log), counters=((str(counter), 3),))
    assert death_of(vitals) == Death(words="Bus error")
    log.write_text(":actor_name:Worker\n")
    assert death_of(vitals).memory
    counter.write_text("nr_free 1\noom_kill 3\n")
    assert death_of(vitals) == Death()
    assert death_of(Vitals(log="", counters=((str(tmp_path / "gone"), 0),))) == Death()


def test_vitals_of_this_process() -> None:
    assert all(count >= 0 for _, count in Vitals.here().counters)
    assert death_of(Vitals.here()) == Death()


@pytest.mark.parametrize(
    ("trouble", "node", "death", "kind", "words"),
    [
        (Trouble.DIED, "", Death(words="Aborted"), "lost_worker", "died, once, (Aborted) while"),
        (Trouble.DIED, "", Death(), "lost_worker", "died, once, (no trace, as of SIGKILL"),
        (Trouble.DIED, "", Death(memory=True, words="by it"), "out_of_memory", "(by it)"),
        (Trouble.MEMORY, "", Death(), "out_of_memory", "Ray's memory monitor ended the worker"),
        (Trouble.NODE, "a", Death(), "node_gone", "the node went away (once), last a,"),
    ],
)
def test_what_is_said_of_a_loss(
    trouble: Trouble, node: str, death: Death, kind: str, words: str
) -> None:
    made = Candidate(id=1, recipe=RECIPE, questions=("q",))
    found = loss_of(
        SubmittedCandidate(candidate=made, slots=[], losses=1), Answer(trouble=trouble), node, death
    )
    assert found.kind is FailureKind(kind)
    assert words in found.message


def test_a_census_whose_answer_never_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evaluators.workers.cluster.node_census.PATIENCE", 0.05)
    asked = list[int]()

    def ask() -> int:
        asked.append(1)
        if len(asked) == 3:
            raise OSError("gone")
        return len(asked)

    census = NodeCensus(ask)
    assert census.latest() in (1, 2)
    for _ in range(100):
        if census.latest() > 3:  # it is asked again after an error
            break
    else:
        pytest.fail("the answer after an error never came")
    census.close()
    census.latest()  # the last answer stands for a while
    monkeypatch.setattr("evaluators.workers.cluster.node_census.SILENCE", 0.0)
    with pytest.raises(TimeoutError):
        census.latest()


def test_where_nobody_is() -> None:
    with pytest.raises(EvaluatorError, match=r"ray: cannot join the cluster at 127.0.0.1:1: "):
        knock("127.0.0.1:1")
    knock("auto")
    knock("ray://127.0.0.1:1")


def test_a_missing_token_is_found_among_the_causes(monkeypatch: pytest.MonkeyPatch) -> None:
    error = ConnectionError("Failed to connect to Ray cluster at 10.0.0.1:6379")
    assert not asks_for_token(error)
    error.__cause__ = RuntimeError("ray.exceptions.AuthenticationError: InvalidAuthToken")
    assert asks_for_token(error)
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    assert no_token().startswith("expected the cluster's token, got none; set RAY_AUTH_MODE=token")
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    assert "got a wrong or no token" in no_token()
