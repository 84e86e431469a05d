"""What was learned as a file: it is rebuilt as it was scored, and mergekit makes the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from safetensors.torch import load_file

from runs.ranking.leaderboard import ranked
from runs.records.record import LEARNED
from runs.storage.store import Store
from search.commands import run_command
from search.commands.build_command import build
from search.inputs.overrides import Overrides
from search.samplers.estimation.posterior import judged
from spaces.recipes.coefficients import Coefficients
from tests.command import search
from tests.search.test_build_mergekit import close, theirs


def test_learned_recipes_are_rebuilt_as_they_were_scored_and_by_mergekit(
    project: Callable[..., Path], tmp_path: Path
) -> None:
    learn = {"steps": 10, "batch": 4, "rate": 0.1, "share": 1.0}
    path = project(search={"trials": 40, "seed": 1, "learn": learn})
    run_command.run(path, out=tmp_path / "mix", overrides=Overrides())
    study = tmp_path / "mix" / "study.db"
    store = Store.open(str(study))
    found = {
        one.origin: (rank, len(set(Coefficients(one.recipe).values)))
        for rank, one in enumerate(ranked(judged(store)), start=1)
        if one.origin.startswith(LEARNED)
    }
    store.close()
    assert found.keys() == {"learned by layer", "learned in the space"}
    assert found["learned by layer"][1] > 30  # it is not one weight per parent
    for rank, _ in found.values():
        recipe = tmp_path / f"{rank}.yaml"
        done = search("export", study, "--rank", rank, "--out", recipe, "--absolute")
        assert done.code == 0, done.err
        ours = tmp_path / f"ours-{rank}"
        assert build(recipe, ours, shard_bytes=10**9)[1] is True
        other = theirs(recipe.read_text(), tmp_path / f"theirs-{rank}")
        close(*(load_file(at / "model.safetensors") for at in (ours, other)), exact=False)
