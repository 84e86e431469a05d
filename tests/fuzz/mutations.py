"""Files as people and disks break them: texts and bytes changed at random places, from a seed."""

import random
from collections.abc import Sequence

NASTY = (
    "", "null", "~", "true", "-1", "0", "1e400", ".nan", "-.inf", "9" * 400, "0x10", "1_000",
    "[]", "{}", "[[]]", "'", '"', "!!python/object/apply:os.system ['true']", "!!binary aGk=",
    "&a [*a]", "*a", "<<: {a: b}", "? [a, b]", "\t", "\x00", "\ufeff", "\u2028", "é́", "😀",
    "../..", "/", "~", "a" * 5000, "2001-01-01", "12:30:45", "- - - -", "---", "...",
    "%YAML 9.9", "# x", "|", ">-", "{a: {a: {a: 1}}}", "[0.1, 0.2, 0.3, 0.4]", "[1, 0]", "yes",
    "linear", "ties", "none",
)  # fmt: skip
"""Values that break readers which expect others."""

WORDS = b"\0\x01\x7f\x80\xff\xfe\xc3\x28\xed\xa0\x80\xf0\x9f"


def broken_text(text: str, rng: random.Random) -> bytes:
    """A YAML text with one to three changes; may still be what it was meant to be."""
    lines = text.splitlines()
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(lines))
        kind = rng.randrange(9)
        if kind == 0:
            del lines[at]
            lines = lines or [""]
        elif kind == 1:
            lines.insert(at, lines[rng.randrange(len(lines))])
        elif kind == 2:
            lines[at] = " " * rng.randint(1, 5) + lines[at]
        elif kind == 3:  # another value under the key
            lines[at] = f"{lines[at].partition(':')[0]}: {rng.choice(NASTY)}"
        elif kind == 4:  # another key
            lines[at] = f"{rng.choice(NASTY)}: {lines[at].partition(':')[2]}"
        elif kind == 5:
            other = rng.randrange(len(lines))
            lines[at], lines[other] = lines[other], lines[at]
        elif kind == 6:
            place = rng.randint(0, len(lines[at]))
            lines[at] = lines[at][:place] + rng.choice(NASTY) + lines[at][place:]
        elif kind == 7:
            lines[at] = lines[at].strip()
        else:  # a number inside a value
            digits = [n for n, one in enumerate(lines[at]) if one.isdigit()]
            if digits:
                place = rng.choice(digits)
                number = rng.choice(("-1", "0", "1e9", ".nan", "99999999999999999999", "x"))
                lines[at] = lines[at][:place] + number + lines[at][place + 1 :]
    data = "\n".join(lines).encode("utf-8", "surrogatepass")
    return broken_bytes(data, rng) if rng.random() < 0.15 else data


def broken_bytes(data: bytes, rng: random.Random, *, within: Sequence[int] = ()) -> bytes:
    """Bytes cut off, flipped, doubled, or with others in between.

    Args:
        data: What there was.
        rng: Decides.
        within: First and last place that may change; nothing means all.
    """
    low, high = within or (0, len(data))
    at = rng.randrange(low, max(low + 1, high))
    kind = rng.randrange(5)
    if kind == 0:
        return data[:at]
    if kind == 1:
        return data[:at] + bytes([data[at % len(data)] ^ (1 << rng.randrange(8))]) + data[at + 1 :]
    if kind == 2:
        size = rng.randint(1, 64)
        return data[:at] + rng.randbytes(size) + data[at + size :]
    if kind == 3:
        return data[:at] + WORDS[: rng.randint(1, len(WORDS))] + data[at:]
    return data[:at] + data[max(low, at - rng.randint(1, 40)) : at] + data[at:]
