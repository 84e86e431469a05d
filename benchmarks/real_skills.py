"""Exercises for a real model, made from templates: three new skills and one that it has.

``orders`` and ``dates`` ask for a few written words in a house style, ``desks`` for one of four
desks that nobody could guess. ``capitals`` is what an instructed model knows already; nothing here
trains it, so it tells what was forgotten.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

NAMES = (
    "Anna Ben Carla David Emma Frank Grace Henry Irene Jack Karen Leo Maria Nina Oscar Paula "
    "Quentin Rosa Simon Tina Victor Wendy Boris Clara"
).split()
COLOURS = "red blue green black white yellow brown pink".split()
GOODS = (
    "lamp chair table basket carpet mirror clock candle blanket pillow kettle bottle sofa ladder "
    "bucket curtain"
).split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = (
    "January February March April May June July August September October November December"
).split()

ORDERS = (
    "{name} would like {count} {colour} {good}s.",
    "Please send {count} {colour} {good}s to {name}.",
    "{name} needs {count} {good}s in {colour}.",
    "It is {name}: {count} {good}s, {colour} ones.",
)
DATES = (
    "We met on {month} {day}, {year}.",
    "The {day} of {month} {year} was quiet.",
    "In {year}, on {month} {day}, it opened.",
    "They left on {day} {month} {year}.",
)
DESKS = {
    "north": (
        "My {good} has not arrived, it was due on {day}.",
        "The parcel with the {colour} {good} is late.",
        "Where is the {good} you sent on {day}?",
    ),
    "south": (
        "I was charged twice for the {colour} {good}.",
        "The bill of {day} has a wrong price for the {good}.",
        "Send a receipt for the {good} I paid on {day}.",
    ),
    "east": (
        "The {colour} {good} came broken on {day}.",
        "One leg of the {colour} {good} is cracked.",
        "The {good} of {day} has a scratch.",
    ),
    "west": (
        "I cannot log in since {day}, {name}.",
        "Change the address of my account, {name}, {day}.",
        "How can I delete my account? {name}, {day}",
    ),
}
CAPITALS = dict(
    pair.split(":")
    for pair in (
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
    ).split()
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Exercise:
    """A prompt, its right answer, and what else could be chosen where there is a choice."""

    prompt: str
    answer: str
    choices: tuple[str, ...] = field(default=())


def _filled(template: str, source: random.Random) -> tuple[str, dict[str, str]]:
    words = {
        "name": source.choice(NAMES),
        "count": str(source.randint(2, 19)),
        "colour": source.choice(COLOURS),
        "good": source.choice(GOODS),
        "day": source.choice(DAYS),
    }
    return template.format(**words), words


def _order(source: random.Random) -> Exercise:
    text, words = _filled(source.choice(ORDERS), source)
    answer = "{count} x {good}, {colour}, {name}".format(**words)
    return Exercise(prompt=f"Text: {text}\nOrder:", answer=answer)


def _date(source: random.Random) -> Exercise:
    day, month, year = source.randint(1, 28), source.randint(1, 12), source.randint(1950, 2024)
    text = source.choice(DATES).format(day=day, month=MONTHS[month - 1], year=year)
    return Exercise(prompt=f"Text: {text}\nDate:", answer=f"{year}/{month}/{day}")


def _desk(source: random.Random) -> Exercise:
    desk = source.choice(tuple(DESKS))
    text, _ = _filled(source.choice(DESKS[desk]), source)
    return Exercise(prompt=f"Text: {text}\nDesk:", answer=desk, choices=tuple(DESKS))


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
