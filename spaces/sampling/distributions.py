"""Where values lie and where they come from: domains, trials, and trials that replay values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


class NotInSpace(ValueError):  # noqa: N818 - a statement about a recipe, not a fault
    """A recipe, or a set of values, that the space cannot draw; the message says why."""


class Trial(Protocol):
    """What values are taken from; an Optuna trial is one."""

    def suggest_float(self, name: str, low: float, high: float, /, *, log: bool = False) -> float:
        """A number in [low, high]."""
        ...

    def suggest_int(self, name: str, low: int, high: int, /) -> int:
        """A whole number in [low, high]."""
        ...

    def suggest_categorical(self, name: str, choices: Sequence[str], /) -> Any:
        """One of the choices."""
        ...


Value = float | int | str
"""What a parameter of a trial can be."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Floats:
    """Numbers in [low, high], on a logarithmic scale if ``log`` (low is then above 0)."""

    low: float
    high: float
    log: bool = False

    @property
    def only(self) -> float | None:
        """The value, where there is just one."""
        return self.low if self.low == self.high else None

    def holds(self, value: Value) -> bool:
        """Whether a value belongs to it."""
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and self.low <= float(value) <= self.high

    def suggest(self, trial: Trial, name: str) -> float:
        """A value from a trial; never a negative zero, which would be a recipe of its own."""
        if self.log:  # which rounds, perhaps to just outside
            value = float(trial.suggest_float(name, self.low, self.high, log=True))
            return min(max(value, self.low), self.high)
        return float(trial.suggest_float(name, self.low, self.high)) + 0.0

    def __str__(self) -> str:
        return f"a number in [{self.low:g}, {self.high:g}]"


@dataclass(frozen=True, kw_only=True, slots=True)
class Integers:
    """Whole numbers in [low, high]."""

    low: int
    high: int

    @property
    def only(self) -> int | None:
        """The value, where there is just one."""
        return self.low if self.low == self.high else None

    def holds(self, value: Value) -> bool:
        """Whether a value belongs to it."""
        whole = isinstance(value, int) and not isinstance(value, bool)
        return whole and self.low <= int(value) <= self.high

    def suggest(self, trial: Trial, name: str) -> int:
        """A value from a trial."""
        return int(trial.suggest_int(name, self.low, self.high))

    def __str__(self) -> str:
        return f"a whole number in [{self.low}, {self.high}]"


@dataclass(frozen=True, slots=True)
class Choices:
    """One of a few words, always in the same order."""

    words: tuple[str, ...]

    @property
    def only(self) -> str | None:
        """The value, where there is just one."""
        return self.words[0] if len(self.words) == 1 else None

    def holds(self, value: Value) -> bool:
        """Whether a value belongs to it."""
        return value in self.words

    def suggest(self, trial: Trial, name: str) -> str:
        """A value from a trial."""
        return str(trial.suggest_categorical(name, self.words))

    def __str__(self) -> str:
        return f"one of {', '.join(self.words)}"


Domain = Floats | Integers | Choices
"""Where the values of one name lie."""


class Fixed:
    """A trial that replays given values.

    Args:
        values: By name; names that are not asked for do no harm.
    """

    def __init__(self, values: Mapping[str, Value]) -> None:
        self._values = dict(values)

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """The number given for ``name``.

        Raises:
            NotInSpace: If there is none, or it is out of range; as for the methods below.
        """
        return float(self._value(name, Floats(low=low, high=high, log=log)))

    def suggest_int(self, name: str, low: int, high: int) -> int:
        """The whole number given for ``name``."""
        return int(self._value(name, Integers(low=low, high=high)))

    def suggest_categorical(self, name: str, choices: Sequence[str]) -> str:
        """The word given for ``name``."""
        return str(self._value(name, Choices(tuple(choices))))

    def _value(self, name: str, domain: Domain) -> Value:
        if name not in self._values:
            raise NotInSpace(f"{name}: expected {domain}, got none")
        value = self._values[name]
        if not domain.holds(value):
            raise NotInSpace(f"{name}: expected {domain}, got {value!r}")
        return value
