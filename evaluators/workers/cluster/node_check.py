"""What a node must have before workers run there: this program, its libraries, models and tasks."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from platform import python_version

from evaluators.harness_spec import HarnessSpec
from evaluators.protocol import Catalogue, EvaluatorError
from evaluators.workers.cluster.shadowed_imports import OURS

PACKAGES = ("merge-search", "torch", "transformers", "lm_eval", "optuna", "ray")
"""Packages whose versions a study remembers."""

DECISIVE = ("torch", "transformers", "lm_eval")
"""Those that decide what a score is: every node must have the same."""


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide a result; none where one is missing."""
    found = {"python": python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:  # it came as a folder, not as a package
            continue
    return found


def code_hash() -> str:
    """Hash of this program's source files, 16 hex digits."""
    digest = hashlib.sha256()
    for package in OURS:
        spec = find_spec(package)
        for folder in (spec.submodule_search_locations if spec is not None else None) or ():
            for path in sorted(Path(folder).rglob("*.py")):
                name = path.relative_to(folder).as_posix()
                digest.update(f"{package}/{name}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


@dataclass(frozen=True, kw_only=True, slots=True)
class NodeCheck:
    """Compares a node with the driver's machine; called there, it gives what the node lacks.

    Attributes:
        spec: Models and tasks as workers look for them; ``None`` where candidates are pretended.
        inputs: Hash of every model by name.
        catalogue: What can be asked.
        evaluator: Name of a user's own evaluator, which knows the questions then.
        versions: On the driver's machine.
        code: Hash of the driver's source files.
    """

    spec: HarnessSpec | None
    inputs: Mapping[str, str]
    catalogue: Catalogue | None
    evaluator: str | None = None
    versions: Mapping[str, str] = field(default_factory=versions)
    code: str = field(default_factory=code_hash)

    def __call__(self) -> tuple[str, ...]:
        """What is missing here or other than expected, one line each."""
        problems = self._program()
        if problems or self.spec is None:
            return tuple(problems)
        return (*self._models(self.spec), *self._tasks(self.spec))

    def _program(self) -> list[str]:
        here = versions()
        problems: list[str] = []
        if code_hash() != self.code:
            problems.append(
                f"merge-search: expected the source files of the driver's machine (version "
                f"{self.versions.get('merge-search', 'unknown')}), got others (version "
                f"{here.get('merge-search', 'unknown')}); install the same there"
            )
        problems += [
            f"{name}: expected version {self.versions.get(name, 'none')} as on the driver's "
            f"machine, got {here.get(name, 'none')}"
            for name in DECISIVE
            if here.get(name) != self.versions.get(name)
        ]
        return problems

    def _models(self, spec: HarnessSpec) -> list[str]:
        from merging.checkpoints.checkpoint import Checkpoint, CheckpointError
        from merging.checkpoints.files.content_hashes import ContentHashes

        problems: list[str] = []
        contents = ContentHashes(None if spec.statistics is None else Path(spec.statistics))
        for name, location in spec.models:
            try:
                found = Checkpoint.open(location, name=name, contents=contents)
                same = found.matches(self.inputs.get(name))
            except CheckpointError as error:
                problems += error.problems
                continue
            if not same:
                problems.append(
                    f"model {name!r} at {location}: expected the files of the driver's machine, "
                    "got others"
                )
        return problems

    def _tasks(self, spec: HarnessSpec) -> list[str]:
        try:
            same = self._asked(spec) == self.catalogue
        except EvaluatorError as error:
            return list(error.problems)
        return [] if same else ["tasks: expected the questions of the driver's machine, got others"]

    def _asked(self, spec: HarnessSpec) -> Catalogue:
        if self.evaluator is None:
            from evaluators.harness.lm_eval_adapter import check

            return check(spec)
        from evaluators.custom_evaluator import OwnFactory

        made = OwnFactory(reference=self.evaluator, spec=spec)()
        try:
            return made.catalogue()
        finally:
            made.close()
