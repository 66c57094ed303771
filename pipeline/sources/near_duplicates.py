"""Texts that are nearly copies of each other, found exactly."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence

_WORD = re.compile(r"\w+")


def normalise(text: str) -> str:
    """The words of a text in lower case, one space apart: texts with the same words are equal."""
    return " ".join(_WORD.findall(unicodedata.normalize("NFKC", text).casefold()))


def shingles(text: str, width: int = 5) -> frozenset[tuple[str, ...]]:
    """The set of runs of `width` words of the normalised text; a shorter text is one run."""
    words = normalise(text).split()
    if len(words) <= width:
        return frozenset([tuple(words)])
    return frozenset(zip(*(words[start:] for start in range(width)), strict=False))


def jaccard(left: frozenset[tuple[str, ...]], right: frozenset[tuple[str, ...]]) -> float:
    """Size of the intersection over size of the union; 1 where both are empty."""
    union = len(left | right)
    return len(left & right) / union if union else 1.0


def near_duplicate_pairs(
    texts: Sequence[str], threshold: float = 0.8, width: int = 5
) -> list[tuple[int, int]]:
    """All pairs of texts whose `width`-word runs have a Jaccard similarity of at least `threshold`.

    Exact, by prefix filtering: two sets of sizes a <= b that are similar enough share at least
    n = ceil(threshold * b) elements. With all elements in one order, rarest first, they then share
    one among the first b - n + 1 of the larger and the first a - n + 1 of the smaller. Only pairs
    that share such a rare element, and whose sizes allow the similarity, are compared.

    Args:
        texts: any texts.
        threshold: in (0, 1].
        width: words per run.

    Returns:
        Sorted pairs (i, j) of positions in `texts`, i < j.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold must be in (0, 1], not {threshold}")
    sets = [shingles(text, width) for text in texts]
    frequency = Counter(shingle for shingle_set in sets for shingle in shingle_set)
    holders: defaultdict[tuple[str, ...], list[int]] = defaultdict(list)
    pairs: list[tuple[int, int]] = []
    for right in sorted(range(len(sets)), key=lambda position: (len(sets[position]), position)):
        size = len(sets[right])
        needed = math.ceil(threshold * size - 1e-9)
        prefix = sorted(sets[right], key=lambda shingle: (frequency[shingle], shingle))
        candidates: set[int] = set()
        for shingle in prefix[: size - needed + 1]:
            candidates.update(holders[shingle])
            holders[shingle].append(right)
        pairs.extend(
            (min(left, right), max(left, right))
            for left in candidates
            if len(sets[left]) >= needed and jaccard(sets[left], sets[right]) >= threshold
        )
    return sorted(pairs)
