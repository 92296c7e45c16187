"""How much generated text repeats itself: measures over token ids, and self-BLEU over texts."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from controllers.core import require


def distinct_n(tokens: Sequence[Hashable], n: int) -> float | None:
    """Return distinct n-grams over all n-grams (Li et al. 2016, arXiv 1510.03055).

    None where the sequence is shorter than n.
    """
    grams = _grams(tokens, n)
    return len(set(grams)) / len(grams) if grams else None


def repeated_share(tokens: Sequence[Hashable]) -> float | None:
    """Return the length of the longest n-gram seen twice over the most it could be, length - 1.

    The two occurrences may overlap, so a constant sequence gives 1. None under two tokens.
    """
    if len(tokens) < 2:
        return None
    low, high = 0, len(tokens) - 1  # a repeated n-gram contains repeated shorter ones
    while low < high:
        middle = (low + high + 1) // 2
        grams = _grams(tokens, middle)
        if len(set(grams)) < len(grams):
            low = middle
        else:
            high = middle - 1
    return low / (len(tokens) - 1)


def self_bleu(texts: Sequence[str]) -> float | None:
    """Return the mean sentence BLEU of each text against the others, in [0, 1]; 1 is all alike.

    Zhu et al. 2018 (arXiv 1802.01886), with sacrebleu's tokeniser and smoothing. None where fewer
    than two texts say anything.
    """
    from sacrebleu.metrics.bleu import BLEU

    said = [text for text in texts if text.strip()]
    if len(said) < 2:
        return None
    bleu = BLEU(effective_order=True)
    scores = [
        bleu.sentence_score(text, [*said[:i], *said[i + 1 :]]).score for i, text in enumerate(said)
    ]
    return sum(scores) / len(scores) / 100.0


def _grams(tokens: Sequence[Hashable], n: int) -> list[tuple[Hashable, ...]]:
    require(n >= 1, "n must be >= 1", n=n)
    return [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
