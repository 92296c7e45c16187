"""Long talks: the first topic of a chat (LongChat), and questions about meetings (QMSum)."""

from __future__ import annotations

from typing import Any

import numpy as np

from reports.evaluation.example import Example, Request, largest
from reports.evaluation.files import chosen, read_rows
from reports.evaluation.filler import sentences

TOPIC_FILES = ("longchat_topics_10.jsonl.gz", "longchat_topics_5.jsonl.gz")
QMSUM_FILE = "qmsum_meetings.jsonl.gz"
SUBJECTS = (
    "the history of bread", "the habits of owls", "the repair of bicycles", "the colours of autumn",
    "the rules of chess", "the building of canals", "the care of roses", "the making of maps",
    "the sounds of the sea", "the study of comets", "the weaving of wool", "the keeping of bees",
)  # fmt: skip
ASK_TOPIC = "What is the first topic we discussed? Only give me the topic name."


def topics(request: Request) -> list[Example]:
    """Return examples asking for the first topic of a long chat (LongChat's topic retrieval).

    The chats of the file with ten topics are used where they fit, else those with five.
    """
    rng = np.random.default_rng([request.seed, 3])
    if request.prompts is None:
        return [_made_up_topics(request, rng, i) for i in range(request.n)]
    fitting: list[tuple[str, dict[str, Any]]] = []
    for file in TOPIC_FILES:
        rows = enumerate(read_rows(request.prompts / file))
        fitting = [
            (f"{file}/{i}", row)
            for i, row in rows
            if request.count(row["prompt"]) <= request.context
        ]
        if len(fitting) >= request.n:
            break
    return [
        _topic(document, row["prompt"], row["topics"][0])
        for _, (document, row) in chosen(fitting, request.n, rng, "topics")
    ]


def qmsum(request: Request) -> list[Example]:
    """Return examples asking about a meeting, scored by ROUGE-L against the reference (QMSum).

    Transcripts that are too long are cut at the end; then only the question on the whole meeting
    is asked, for an answer to another may lie in what was cut.
    """
    rng = np.random.default_rng([request.seed, 4])
    if request.prompts is None:
        raise ValueError("tasks: qmsum needs the public prompt files; set ENTROPIC_DATA")
    asked = []
    for number, row in enumerate(read_rows(request.prompts / QMSUM_FILE)):
        whole = request.count(_meeting(row["transcript"], "?")) + 64 <= request.context
        questions = row["general"] + (row["specific"] if whole else [])
        asked += [(number, row["transcript"], question) for question in questions]
    return [_qmsum(request, *row) for _, row in chosen(asked, request.n, rng, "qmsum")]


def _topic(document: str, prompt: str, name: str) -> Example:
    return Example(
        task="topics",
        document=document,
        prompt=prompt,
        answer=(name,),
        reply=f"The first topic we discussed is {name[0].lower()}{name[1:]}.",
        metric="exact",
        max_tokens=32,
    )


def _made_up_topics(request: Request, rng: np.random.Generator, index: int) -> Example:
    subjects = [SUBJECTS[i] for i in rng.permutation(len(SUBJECTS))]
    document, text = sentences(None, rng, 600)

    def build(k: int) -> str:
        share = -(-k // len(subjects))
        turns = []
        for i, subject in enumerate(subjects):
            said = " ".join(text[i * share : min(k, (i + 1) * share)])
            if said:
                turns.append(f"USER: I would like to discuss {subject}.\nASSISTANT: {said}")
        return "Below is a record of our talk.\n\n" + "\n".join(turns) + f"\n\n{ASK_TOPIC}"

    k = largest(build, len(text), request.context, request.count)
    return _topic(f"{document}/{index}", build(k), subjects[0])


def _qmsum(request: Request, number: int, transcript: str, asked: dict[str, str]) -> Example:
    turns = transcript.split("\n")

    def build(k: int) -> str:
        return _meeting("\n".join(turns[:k]), asked["query"])

    k = largest(build, len(turns), request.context, request.count)
    return Example(
        task="qmsum",
        document=f"qmsum_meetings/{number}",
        prompt=build(k),
        answer=(asked["reference"],),
        reply=asked["reference"],
        metric="rouge_l",
        max_tokens=160,
        details={"turns": k, "turns_of": len(turns)},
    )


def _meeting(transcript: str, query: str) -> str:
    return (
        f"Below is the transcript of a meeting.\n\n{transcript}\n\n"
        f"Answer in a few sentences, from the transcript alone: {query}"
    )
