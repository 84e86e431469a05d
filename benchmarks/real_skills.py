"""Exercises for a real model, made from templates: three new skills and one that it has.

All three are asked about the same kind of message, a customer's order: ``orders`` and ``dates``
want a few written words in a house style, ``desks`` the one of four desks that is in charge of the
goods, which nobody could guess. Only the last word of a prompt says what is asked. ``capitals`` is
what an instructed model knows already; nothing here trains it, so it tells what was forgotten.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


NAMES = _words(
    "Anna Ben Carla David Emma Frank Grace Henry Irene Jack Karen Leo Maria Nina Oscar Paula "
    "Quentin Rosa Simon Tina Victor Wendy Boris Clara"
)
COLOURS = _words("red blue green black white yellow brown pink")
DESKS = {
    "north": _words("lamp candle mirror clock"),
    "south": _words("chair table sofa ladder"),
    "east": _words("carpet blanket pillow curtain"),
    "west": _words("basket kettle bottle bucket"),
}
"""What each desk is in charge of."""

MONTHS = _words(
    "January February March April May June July August September October November December"
)
TEXTS = (
    "{name} wants {count} {colour} {good}s by {date}.",
    "Send {count} {colour} {good}s to {name} on {date}.",
    "By {date}, {name} needs {count} {good}s in {colour}.",
    "On {date} {name} ordered {count} {colour} {good}s.",
)
CAPITALS = dict(
    pair.split(":")
    for pair in _words(
        "France:Paris Italy:Rome Spain:Madrid Germany:Berlin Austria:Vienna Greece:Athens "
        "Portugal:Lisbon Ireland:Dublin Poland:Warsaw Hungary:Budapest Norway:Oslo "
        "Sweden:Stockholm Finland:Helsinki Denmark:Copenhagen Belgium:Brussels Russia:Moscow "
        "Turkey:Ankara Egypt:Cairo Kenya:Nairobi Japan:Tokyo China:Beijing Thailand:Bangkok "
        "Cuba:Havana Peru:Lima Chile:Santiago Canada:Ottawa Australia:Canberra Iran:Tehran "
        "Iraq:Baghdad Syria:Damascus Lebanon:Beirut Jordan:Amman Ukraine:Kiev Romania:Bucharest "
        "Bulgaria:Sofia Serbia:Belgrade Croatia:Zagreb Iceland:Reykjavik Vietnam:Hanoi "
        "Indonesia:Jakarta Philippines:Manila Nepal:Kathmandu Afghanistan:Kabul Morocco:Rabat "
        "Tunisia:Tunis Libya:Tripoli Senegal:Dakar Ghana:Accra Uganda:Kampala Zimbabwe:Harare "
        "Venezuela:Caracas"
    )
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Exercise:
    """A prompt, its right answer, and what else could be chosen where there is a choice."""

    prompt: str
    answer: str
    choices: tuple[str, ...] = field(default=())


@dataclass(frozen=True, kw_only=True, slots=True)
class Message:
    """A customer's order in some words, and what it says."""

    text: str
    order: str
    date: str
    desk: str


def _message(source: random.Random) -> Message:
    desk = source.choice(tuple(DESKS))
    good, colour = source.choice(DESKS[desk]), source.choice(COLOURS)
    name, count = source.choice(NAMES), source.randint(2, 19)
    month, day = source.randint(1, 12), source.randint(1, 28)
    written = source.choice((f"{MONTHS[month - 1]} {day}", f"{day} {MONTHS[month - 1]}"))
    text = source.choice(TEXTS)
    return Message(
        text=text.format(name=name, count=count, colour=colour, good=good, date=written),
        order=f"{count} x {good}, {colour}, {name}",
        date=f"{month:02}/{day:02}",
        desk=desk,
    )


def _order(source: random.Random) -> Exercise:
    found = _message(source)
    return Exercise(prompt=f"{found.text}\nOrder:", answer=found.order)


def _date(source: random.Random) -> Exercise:
    found = _message(source)
    return Exercise(prompt=f"{found.text}\nDate:", answer=found.date)


def _desk(source: random.Random) -> Exercise:
    found = _message(source)
    return Exercise(prompt=f"{found.text}\nDesk:", answer=found.desk, choices=tuple(DESKS))


def _capital(source: random.Random) -> Exercise:
    country = source.choice(tuple(CAPITALS))
    others = source.sample([x for one, x in CAPITALS.items() if one != country], 3)
    choices = [CAPITALS[country], *others]
    source.shuffle(choices)
    return Exercise(
        prompt=f"The capital of {country} is", answer=CAPITALS[country], choices=tuple(choices)
    )


SKILLS: dict[str, Callable[[random.Random], Exercise]] = {
    "orders": _order,
    "dates": _date,
    "desks": _desk,
    "capitals": _capital,
}
