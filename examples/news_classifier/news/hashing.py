"""Raw text to n-gram numbers, a whole batch at once: no vocabulary, no loop over words.

Every word's hash is a difference of two prefix sums of a polynomial over the bytes, taken modulo 2**64.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

#: What of a text is hashed.
KINDS = ("word", "stem", "pair")
#: `shares`, `shared` and `share` have a stem in common.
STEM_BYTES = 5
BASE = 0x100000001B3
_INVERSE = pow(BASE, -1, 2**64)
#: Leftovers of HTML entities in AG News (`quot;`, `#39;`, `&lt;`) and tags say nothing about a topic.
NOISE = re.compile(r"&?\b(?:quot|amp|lt|gt|nbsp);|&?#\d+;|<[^<>]{0,200}>")

_IS_WORD = np.zeros(256, dtype=bool)
_IS_WORD[[*range(ord("a"), ord("z") + 1), *range(ord("0"), ord("9") + 1), *range(128, 256)]] = True


@dataclass(frozen=True)
class Bags:
    """The n-grams of a batch of texts, one after the other.

    Attributes:
        hashes: shape (n-grams,), uint64.
        offsets: shape (texts,), int64: where each text's n-grams begin.
        counts: shape (texts,), int64: how many it has; zero for a text without words.
    """

    hashes: np.ndarray
    offsets: np.ndarray
    counts: np.ndarray


def clean(text: str) -> str:
    """Return a text in lower case, without what is not language. Any string is welcome, lone surrogates too."""
    lowered = text.lower()
    return NOISE.sub(" ", lowered) if "<" in lowered or ";" in lowered else lowered


def bags(texts: Sequence[str], kinds: Sequence[str] = KINDS) -> Bags:
    """Return each text's words, their stems (the first bytes) and its pairs of neighbouring words as 64-bit hashes.

    Args:
        kinds: only these; a hash is the same whatever is hashed beside it.
    """
    raw = [clean(text).encode("utf-8", "replace") for text in texts]
    buffer = np.frombuffer(b"\n".join(raw) + b"\n", dtype=np.uint8)
    text_ends = np.cumsum([len(piece) + 1 for piece in raw])
    starts, ends = _words(buffer)
    rows = np.searchsorted(text_ends, starts, side="right")
    sums, inverses = _prefix_sums(buffer)
    words = _mix((sums[ends] - sums[starts]) * inverses[starts])
    stem_ends = np.minimum(ends, starts + STEM_BYTES)
    stems = _mix((sums[stem_ends] - sums[starts]) * inverses[starts] + np.uint64(77))
    pairs = _mix(words * np.uint64(0x9E3779B97F4A7C15) + np.roll(words, -1))
    is_pair = np.append(rows[1:] == rows[:-1], False) if len(rows) else np.zeros(0, dtype=bool)
    wanted = np.column_stack(
        [np.full(len(rows), "word" in kinds), np.full(len(rows), "stem" in kinds), is_pair & ("pair" in kinds)]
    ).reshape(-1)
    hashes = np.column_stack([words, stems, pairs]).reshape(-1)[wanted]
    counts = np.bincount(np.repeat(rows, 3)[wanted], minlength=len(raw)).astype(np.int64)
    return Bags(hashes, np.cumsum(counts) - counts, counts)


def _words(buffer: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return where runs of letters, digits and non-ASCII bytes begin and end (exclusive)."""
    steps = np.diff(_IS_WORD[buffer].astype(np.int8), prepend=0, append=0)
    return np.flatnonzero(steps == 1), np.flatnonzero(steps == -1)


def _prefix_sums(buffer: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the sums of byte * BASE**position before each position, and BASE**-position; overflow is the modulo.

    The hash of bytes i to j is then (sums[j] - sums[i]) * inverses[i], wherever in the batch they stand.
    """
    powers = np.full(len(buffer), BASE, dtype=np.uint64)
    inverses = np.full(len(buffer), _INVERSE, dtype=np.uint64)
    powers[0] = inverses[0] = 1
    np.cumprod(powers, out=powers)
    np.cumprod(inverses, out=inverses)
    sums = np.zeros(len(buffer) + 1, dtype=np.uint64)
    np.cumsum((buffer.astype(np.uint64) + np.uint64(1)) * powers, out=sums[1:])
    return sums, inverses


def _mix(values: np.ndarray) -> np.ndarray:
    """Spread every bit over all others (the finisher of splitmix64); a polynomial's low bits are too regular."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
