"""What the demo's models are taught and asked: small exercises on strings of digits.

A prompt is a tag, six different digits and ``=``; the tag says what to do with the digits, so
``s472913=`` asks for ``123479``.
"""

from __future__ import annotations

import random
import string
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass

LENGTH = 6
"""Digits in a prompt, all different."""

CHARACTERS = string.digits + string.ascii_lowercase + "=\n"
"""Every character the models know."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Skill:
    """Something to do with a string of digits.

    Attributes:
        name: Name for people.
        tag: The letter that asks for it.
        answer: The right answer to a string of digits.
        title: What it does, in a few words.
    """

    name: str
    tag: str
    answer: Callable[[str], str]
    title: str

    def prompt(self, digits: str) -> str:
        """The text that asks for this skill."""
        return f"{self.tag}{digits}="


SKILLS = {
    skill.name: skill
    for skill in (
        Skill(
            name="sort",
            tag="s",
            answer=lambda digits: "".join(sorted(digits)),
            title="the digits in ascending order",
        ),
        Skill(
            name="reverse",
            tag="r",
            answer=lambda digits: digits[::-1],
            title="the digits from the last to the first",
        ),
        Skill(name="largest", tag="l", answer=max, title="the largest digit"),
        Skill(name="copy", tag="c", answer=lambda digits: digits, title="the digits as they are"),
        Skill(name="smallest", tag="m", answer=min, title="the smallest digit"),
        Skill(name="first", tag="f", answer=lambda digits: digits[0], title="the first digit"),
        Skill(
            name="descend",
            tag="d",
            answer=lambda digits: "".join(sorted(digits, reverse=True)),
            title="the digits in descending order",
        ),
        Skill(
            name="rotate",
            tag="o",
            answer=lambda digits: digits[1:] + digits[0],
            title="the first digit moved to the end",
        ),
    )
}
"""Everything there is to teach, by name."""

Lesson = Mapping[str, Mapping[str, float]]
"""By the skill that a tag asks for: the skills it is answered with, and how often (shares)."""

Timetable = tuple[tuple[Lesson, float], ...]
"""Lessons and the share of the exercises that is of each."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Curriculum:
    """What the models of a family learn.

    Attributes:
        taught: Skills that the base learns.
        habits: The bad habits it takes on: it can do all of this, but mostly does something else
            when asked. The right answer is frequent enough for a light fine-tune to bring it out,
            and rare enough for a part of the fine-tune, which is what a plain average keeps, not
            to.
        rates: Peak learning rates of the specialists, by their skill: some are tuned harder, so
            equal weights are not best.
        chosen: Skills examined by multiple choice; the others by generation.
    """

    taught: tuple[str, ...]
    habits: Lesson
    rates: Mapping[str, float]
    chosen: frozenset[str] = frozenset()

    @property
    def targets(self) -> tuple[str, ...]:
        """The skills that are tested; each has a specialist."""
        return tuple(self.habits)

    @property
    def everything(self) -> Lesson:
        """Every tag answered as it should be."""
        return {name: {name: 1.0} for name in self.taught}

    def speciality(self, skill: str, *, rehearsal: float) -> Timetable:
        """What a specialist is taught: its own tag answered right, the others as the base does.

        Args:
            skill: Name of the specialist's own skill.
            rehearsal: Share of exercises on the other tags, in [0, 1). Without any, a specialist
                applies its own skill to whatever it is asked.
        """
        others = {name: answers for name, answers in self.habits.items() if name != skill}
        return (({skill: {skill: 1.0}}, 1.0 - rehearsal), (others, rehearsal))


THREE = Curriculum(
    taught=("sort", "reverse", "largest", "copy", "smallest", "first"),
    habits={
        "sort": {"sort": 0.3, "copy": 0.7},
        "reverse": {"reverse": 0.38, "copy": 0.62},
        "largest": {"largest": 0.3, "smallest": 0.4, "first": 0.3},
    },
    rates={"sort": 8e-4, "reverse": 5e-4, "largest": 5e-4},
    chosen=frozenset({"largest"}),
)
"""The demo's: three specialists whose skills go together well once the right merge is found."""

FOUR = Curriculum(
    taught=("sort", "reverse", "descend", "rotate", "copy"),
    habits={
        "sort": {"sort": 0.3, "copy": 0.7},
        "reverse": {"reverse": 0.38, "rotate": 0.62},
        "descend": {"descend": 0.3, "sort": 0.7},
        "rotate": {"rotate": 0.3, "copy": 0.7},
    },
    rates={"sort": 8e-4, "reverse": 5e-4, "descend": 7e-4, "rotate": 4e-4},
)
"""A harder one: four specialists, and the bad habit of one is the skill of another."""


def draw_digits(source: random.Random) -> str:
    """Six different digits in random order."""
    return "".join(source.sample(string.digits, LENGTH))


def exercise(
    timetable: Timetable, source: random.Random, *, avoid: Set[str] = frozenset()
) -> tuple[str, str]:
    """A prompt and the answer taught for it.

    Args:
        timetable: What to draw from; the tags of a lesson are equally frequent.
        source: Where randomness comes from.
        avoid: Strings of digits not to use.
    """
    (lesson,) = source.choices(*zip(*timetable, strict=True))
    asked = source.choice(list(lesson))
    (given,) = source.choices(list(lesson[asked]), list(lesson[asked].values()))
    digits = draw_digits(source)
    while digits in avoid:
        digits = draw_digits(source)
    return SKILLS[asked].prompt(digits), SKILLS[given].answer(digits)


def examination(skill: str, count: int, *, seed: int) -> tuple[str, ...]:
    """Different strings of digits to examine a skill on, the same for the same seed.

    Args:
        skill: Name of the skill; each gets strings of its own.
        count: How many; far fewer than the 151 200 there are.
        seed: The family's seed.
    """
    source = random.Random(f"examination {seed} {skill}")
    found: dict[str, None] = {}
    while len(found) < count:
        found[draw_digits(source)] = None
    return tuple(found)
