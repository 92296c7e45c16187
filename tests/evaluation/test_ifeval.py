"""Every instruction check has a reply that follows it, one that does not, and an edge."""

from __future__ import annotations

import pytest

from reports.evaluation.files import read_rows
from reports.evaluation.ifeval import CHECKS, followed
from reports.evaluation.short import coverage_of_ifeval

CASES = [
    ("punctuation:no_comma", {}, ["no comma. here"], ["one, two"]),
    (
        "length_constraints:number_words",
        {"relation": "at least", "num_words": 3},
        ["one two three", "it's two"],  # an apostrophe parts words, as in the paper's rule
        ["one two", "- - -"],
    ),
    (
        "length_constraints:number_words",
        {"relation": "less than", "num_words": 3},
        ["one two"],
        ["one two three"],
    ),
    (
        "length_constraints:number_paragraphs",
        {"num_paragraphs": 2},
        ["a\n***\nb", "***\na\n***\nb\n***"],
        ["a\n\nb", "a\n***\n\n***\nb"],
    ),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "then"},
        ['First.\n\n"Then, it rained.'],
        ["First.\n\nIt rained then.", "Then."],
    ),
    ("keywords:existence", {"keywords": ["Fox", "hen"]}, ["the fox and the hen"], ["the fox"]),
    ("keywords:forbidden_words", {"forbidden_words": ["cat"]}, ["concatenate"], ["A Cat."]),
    (
        "keywords:frequency",
        {"keyword": "tide", "frequency": 2, "relation": "at least"},
        ["Tide and tide"],
        ["tide"],
    ),
    (
        "keywords:letter_frequency",
        {"letter": "Q", "let_relation": "at least", "let_frequency": 1},
        ["quick"],
        ["brown"],
    ),
    (
        "change_case:capital_word_frequency",
        {"capital_relation": "at least", "capital_frequency": 2},
        ["STOP right NOW", "A-B and I"],
        ["Stop NOW"],
    ),
    ("change_case:english_lowercase", {}, ["all lower 1!"], ["One upper"]),
    ("change_case:english_capital", {}, ["ALL UPPER 1!"], ["ALL BUT one"]),
    (
        "detectable_format:number_highlighted_sections",
        {"num_highlights": 2},
        ["*one* and **two**"],
        ["*one* only", "* * and ****"],
    ),
    (
        "detectable_format:number_bullet_lists",
        {"num_bullets": 2},
        ["* a\n* b", "- a\n  - b"],
        ["* a", "* a\n* b\n* c", "**bold**\n* a"],
    ),
    ("detectable_format:title", {}, ["<<A Fox>>\nOnce"], ["<A Fox>", "<< >>"]),
    (
        "detectable_format:multiple_sections",
        {"section_spliter": "PART", "num_sections": 2},
        ["PART 1\na\nPART 2\nb"],
        ["PART 1\na", "PART one PART two"],
    ),
    ("detectable_format:constrained_response", {}, ["Well: My answer is no."], ["No."]),
    ("detectable_format:json_format", {}, ['```json\n{"a": 1}\n```', "[1]"], ["{a: 1}"]),
    (
        "detectable_content:number_placeholders",
        {"num_placeholders": 2},
        ["[name] lives at [address]"],
        ["[name]"],
    ),
    (
        "detectable_content:postscript",
        {"postscript_marker": "P.P.S"},
        ["Bye.\nP.P.S. one more", "p. p. s later"],
        ["Bye.\nP.S. one", "pps"],
    ),
    ("startend:quotation", {}, ['"quoted"'], ['"open', '"']),
    (
        "startend:end_checker",
        {"end_phrase": "The end."},
        ["Once. the end.", '"The END."'],
        ["The end. Or not"],
    ),
    ("combination:two_responses", {}, ["a\n******\nb"], ["a", "a******a", "a******b******c"]),
    (
        "combination:repeat_prompt",
        {"prompt_to_repeat": "Say hi."},
        ["say hi. Hi!"],
        ["Hi! Say hi."],
    ),
]


@pytest.mark.parametrize(("name", "arguments", "right", "wrong"), CASES)
def test_a_check_tells_right_from_wrong(name, arguments, right, wrong):
    for text in right:
        assert followed(text, [[name, arguments]]) == [True], text
    for text in ["", "  \n", *wrong]:
        assert followed(text, [[name, arguments]]) == [False], text


def test_every_check_has_a_case():
    assert {case[0] for case in CASES} == set(CHECKS)


def test_an_unknown_instruction_or_relation_is_refused():
    with pytest.raises(ValueError, match=r"instruction must be one of .*language:response"):
        followed("text", [["language:response_language", {"language": "kn"}]])
    with pytest.raises(ValueError, match="relation is unknown"):
        followed("a", [["length_constraints:number_words", {"relation": "most", "num_words": 1}]])


def test_most_of_ifeval_is_checked(data_dir):
    found = coverage_of_ifeval(read_rows(data_dir / "prompts" / "ifeval.jsonl.gz"))
    assert (found["prompts"], found["instructions"], found["kinds"]) == (541, 834, 25)
    assert found["kinds_checked"] == 23
    assert found["instructions_checked"] == 834 - 31 - 52  # languages and sentences
    assert found["prompts_checked"] > 450
