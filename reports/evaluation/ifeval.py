"""Checks of IFEval's verifiable instructions (arXiv 2311.07911), written anew from its rules.

Left out, for they need a language model or a splitter of our own making: the language of the reply,
and the number of its sentences. The two case checks do not ask whether the text is English.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from controllers.core import require

Check = Callable[..., bool]
PHRASES = ("My answer is yes.", "My answer is no.", "My answer is maybe.")
ASTERISKS = "******"


def followed(text: str, asked: Sequence[Sequence[Any]]) -> list[bool]:
    """Return for each ``[name, arguments]`` whether ``text`` follows it; empty text never does.

    Raises:
        ValueError: an instruction that ``CHECKS`` lacks.
    """
    require(len(asked) >= 1, "there must be an instruction to check", instructions=len(asked))
    verdicts = []
    for name, arguments in asked:
        require(name in CHECKS, f"instruction must be one of {sorted(CHECKS)}", instruction=name)
        verdicts.append(bool(text.strip()) and CHECKS[name](text, **arguments))
    return verdicts


def compare(value: int, relation: str, bound: int) -> bool:
    """Return whether ``value`` is "less than" or "at least" ``bound``."""
    require(relation in ("less than", "at least"), "relation is unknown", relation=relation)
    return value < bound if relation == "less than" else value >= bound


def _no_comma(text: str) -> bool:
    return "," not in text


def _words(text: str, relation: str, num_words: int) -> bool:
    return compare(len(re.findall(r"\w+", text)), relation, num_words)


def _existence(text: str, keywords: list[str]) -> bool:
    return all(word.lower() in text.lower() for word in keywords)


def _forbidden(text: str, forbidden_words: list[str]) -> bool:
    return not any(
        re.search(rf"\b{re.escape(word)}\b", text, re.IGNORECASE) for word in forbidden_words
    )


def _frequency(text: str, keyword: str, relation: str, frequency: int) -> bool:
    return compare(text.lower().count(keyword.strip().lower()), relation, frequency)


def _letters(text: str, letter: str, let_relation: str, let_frequency: int) -> bool:
    return compare(text.lower().count(letter.lower()), let_relation, let_frequency)


def _capital_words(text: str, capital_relation: str, capital_frequency: int) -> bool:
    shouted = [word for word in re.findall(r"\w[\w'-]*", text) if word.isupper()]
    return compare(len(shouted), capital_relation, capital_frequency)


def _lowercase(text: str) -> bool:
    return text == text.lower()


def _capital(text: str) -> bool:
    return text == text.upper()


def _highlights(text: str, num_highlights: int) -> bool:
    found = re.findall(r"\*\*[^\n*]+\*\*|\*[^\n*]+\*", text)
    return sum(bool(part.strip("* ")) for part in found) >= num_highlights


def _bullets(text: str, num_bullets: int) -> bool:
    return len(re.findall(r"^\s*(?:\*[^*\n]|-)", text, re.MULTILINE)) == num_bullets


def _title(text: str) -> bool:
    return any(part.strip() for part in re.findall(r"<<([^\n]+?)>>", text))


def _placeholders(text: str, num_placeholders: int) -> bool:
    return len(re.findall(r"\[.*?\]", text)) >= num_placeholders


def _sections(text: str, section_spliter: str, num_sections: int) -> bool:
    return len(re.findall(rf"{re.escape(section_spliter)}\s?\d+", text)) >= num_sections


def _paragraphs(text: str, num_paragraphs: int) -> bool:
    parts = [part.strip() for part in text.split("***")]
    if not parts[0]:
        parts = parts[1:]
    if parts and not parts[-1]:
        parts = parts[:-1]
    return all(parts) and len(parts) == num_paragraphs


def _nth_word(text: str, num_paragraphs: int, nth_paragraph: int, first_word: str) -> bool:
    parts = [part.strip() for part in re.split(r"\n\n", text) if part.strip()]
    if len(parts) != num_paragraphs or not 1 <= nth_paragraph <= len(parts):
        return False
    first = parts[nth_paragraph - 1].split()[0]
    return first.strip("\"'.,!?").lower() == first_word.lower()


def _quotation(text: str) -> bool:
    inside = text.strip()
    return len(inside) > 1 and inside.startswith('"') and inside.endswith('"')


def _end(text: str, end_phrase: str) -> bool:
    return text.strip().strip('"').lower().endswith(end_phrase.strip().lower())


def _postscript(text: str, postscript_marker: str) -> bool:
    letters = [part for part in re.split(r"[.\s]+", postscript_marker) if part]
    pattern = r"\.\s?".join(map(re.escape, letters))
    return re.search(rf"^\s*{pattern}", text, re.IGNORECASE | re.MULTILINE) is not None


def _two_responses(text: str) -> bool:
    parts = [part.strip() for part in text.split(ASTERISKS)]
    return len(parts) == 2 and all(parts) and parts[0] != parts[1]


def _repeats(text: str, prompt_to_repeat: str) -> bool:
    return text.strip().lower().startswith(prompt_to_repeat.strip().lower())


def _constrained(text: str) -> bool:
    return any(phrase in text for phrase in PHRASES)


def _json(text: str) -> bool:
    inside = re.sub(r"^```(?:json)?\s*|\s*```$", "", text.strip(), flags=re.IGNORECASE)
    try:
        json.loads(inside)
    except ValueError:
        return False
    return True


CHECKS: Mapping[str, Check] = MappingProxyType(
    {
        "punctuation:no_comma": _no_comma,
        "length_constraints:number_words": _words,
        "length_constraints:number_paragraphs": _paragraphs,
        "length_constraints:nth_paragraph_first_word": _nth_word,
        "keywords:existence": _existence,
        "keywords:forbidden_words": _forbidden,
        "keywords:frequency": _frequency,
        "keywords:letter_frequency": _letters,
        "change_case:capital_word_frequency": _capital_words,
        "change_case:english_lowercase": _lowercase,
        "change_case:english_capital": _capital,
        "detectable_format:number_highlighted_sections": _highlights,
        "detectable_format:number_bullet_lists": _bullets,
        "detectable_format:title": _title,
        "detectable_format:multiple_sections": _sections,
        "detectable_format:constrained_response": _constrained,
        "detectable_format:json_format": _json,
        "detectable_content:number_placeholders": _placeholders,
        "detectable_content:postscript": _postscript,
        "startend:quotation": _quotation,
        "startend:end_checker": _end,
        "combination:two_responses": _two_responses,
        "combination:repeat_prompt": _repeats,
    }
)
