"""Lengths and times of an arrival trace, joined to recorded requests that answer for them.

Each arrival is answered by a recorded request of similar prompt length: one of the ``nearest`` in
ln(prompt tokens), drawn with the seed, of its own task class where the arrivals name a recorded
one. Its entropies are read from that recording, from the first token on; tokens beyond its end are
block-bootstrapped from it (``write_scripts``).

What this assumes: that the recorded mix of requests stands for the arrivals', that the recorded
model's entropies stand for the planned model's, and that a longer answer goes on as the recording
did. Page shares are the recording's too, at its own context. Prompt length alone says little of
entropy: in ``smollm2_recorded`` the 32 nearest other prompts explain 8 % of the variance of mean
H between requests, the 8 nearest 13 %, the task class 34 %. The join keeps shares of pages and
contexts that belong together, and spreads entropies as recorded. Arrival traces say nothing of
temperature or seed: they are the recording's. Output lengths are the arrival trace's, whatever the
temperature.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from controllers.core import require
from controllers.serving.request import Request
from simulator.arrival import NONE, ArrivalTable, Columns
from simulator.workload import NS_PER_S, Asking, Workload, nanoseconds, stream
from traces.arrivals import Arrivals, Labels

if TYPE_CHECKING:
    from traces.store import Trace

NEAREST = 32  # recorded requests that may answer for an arrival: enough to differ
JOIN, PATIENCE = 3, 2  # streams of the seed; 0 and 1 are those of ``workload``


@dataclass(frozen=True, slots=True, kw_only=True)
class Recordings:
    """The recorded requests that can answer: those with a token, by prompt length."""

    index: np.ndarray  # int64 [m], into the request table
    log_prompt: np.ndarray  # float64 [m], ascending
    prompt_tokens: np.ndarray  # int64 [m]
    output_tokens: np.ndarray  # int64 [m]
    classes: Labels  # of each

    @classmethod
    def of(cls, trace: Trace, rng: np.random.Generator) -> Recordings:
        """Sort the recordings of ``trace``; equal prompt lengths lie in the seed's order."""
        usable = [r for r in trace.requests if r.output_tokens >= 1]
        n = len(trace.requests)
        require(len(usable) >= 1, "the trace needs a request with a token", requests=n)
        usable = [usable[i] for i in rng.permutation(len(usable))]
        usable.sort(key=lambda record: record.prompt_tokens)
        prompts = np.array([record.prompt_tokens for record in usable], np.int64)
        return cls(
            index=np.array([record.request for record in usable], np.int64),
            log_prompt=np.log(prompts),
            prompt_tokens=prompts,
            output_tokens=np.array([record.output_tokens for record in usable], np.int64),
            classes=Labels.of([record.task_class for record in usable]),
        )

    def picked(self, rows: np.ndarray) -> Recordings:
        """Return the recordings ``rows``, integer ``[k]``, ascending."""
        return Recordings(
            index=self.index[rows],
            log_prompt=self.log_prompt[rows],
            prompt_tokens=self.prompt_tokens[rows],
            output_tokens=self.output_tokens[rows],
            classes=self.classes.picked(rows),
        )

    def near(self, prompt_tokens: np.ndarray, draws: np.ndarray, nearest: int) -> np.ndarray:
        """Return for each prompt one of the ``nearest`` recordings, int64 ``[n]``.

        ``draws`` in [0, 1) choose among them. The nearest form a window of the sorted lengths,
        whose start is found by bisection: it moves right while the left end is the farther one.
        """
        count = min(nearest, len(self.index))
        wanted = np.log(prompt_tokens)
        low = np.zeros(len(wanted), np.int64)
        high = np.full(len(wanted), len(self.index) - count)
        while (low < high).any():
            middle = (low + high) // 2
            beyond = np.minimum(middle + count, len(self.index) - 1)
            farther = wanted - self.log_prompt[middle] > self.log_prompt[beyond] - wanted
            open_ = low < high
            low = np.where(open_ & farther, middle + 1, low)
            high = np.where(open_ & ~farther, middle, high)
        return low + (draws * count).astype(np.int64)


def joined_workload(
    trace: Trace,
    arrivals: Arrivals,
    *,
    seed: int,
    asking: Asking | None = None,
    max_total: int | None = None,
    room: int | None = None,
    nearest: int = NEAREST,
    share_prefixes: bool = True,
) -> Workload:
    """Return the requests of ``arrivals``, each answered by a recording of ``trace``.

    Every request may run to the longest output of ``arrivals`` (or ``asking.max_tokens``): nobody
    knows its length, and the prediction is the mean of the others of its class. Where prompt and
    output exceed ``max_total`` tokens, the prompt is cut to what the output leaves of it, as
    Vidur does. Prompts share pages where ``arrivals`` has block ids, unless ``share_prefixes`` is
    off. ``Workload.caveats`` counts what had to be stretched. Equal seeds give equal choices at
    every rate. Raises ``ValueError`` for arrivals without lengths, and for a request that needs
    more than ``room``, the tokens of a whole KV pool: no server could ever run it.
    """
    asking = Asking() if asking is None else asking
    require(nearest >= 1, "nearest must be >= 1", nearest=nearest)
    prompts, outputs, caps, cut = _fitted(arrivals, asking.max_tokens, max_total)
    if room is not None:
        require_room(arrivals, asking.max_tokens, room, "the KV pool")
        caps = np.minimum(caps, room - prompts)
    rng = stream(seed, JOIN)
    recordings = Recordings.of(trace, rng)
    draws = rng.random(len(prompts))
    chosen, matched = choose(recordings, prompts, draws, nearest, arrivals.classes)
    classes = recordings.classes.picked(chosen) if arrivals.classes is None else arrivals.classes
    clients = classes if arrivals.tenants is None else arrivals.tenants
    times_ns = nanoseconds(arrivals.times_s)
    none = np.broadcast_to(np.int64(NONE), len(prompts))  # takes no memory
    columns = Columns(
        arrival_ns=times_ns,
        trace_index=recordings.index[chosen],
        prompt_tokens=prompts,
        output_tokens=outputs,
        max_tokens=caps,
        predicted_tokens=predicted(outputs, classes.codes),
        cancel_ns=cancellations(times_ns, asking, seed),
        client=clients.codes,
        task_class=classes.codes,
        after=none,
        think_ns=np.broadcast_to(np.int64(0), len(prompts)),
    )
    table = ArrivalTable(
        columns,
        templates=templates(trace, asking),
        clients=clients.names,
        classes=classes.names,
        prefixes=arrivals.prefixes if share_prefixes else None,
        page_tokens=int(trace.metadata["page_tokens"]),
    )
    return Workload(
        arrivals=table,
        empty_recordings=len(trace.requests) - len(recordings.index),
        caveats=stretched(recordings, chosen, prompts, np.minimum(outputs, caps))
        | {"join_requests_cut": cut, "join_requests_of_class": matched},
    )


def choose(
    recordings: Recordings,
    prompts: np.ndarray,
    draws: np.ndarray,
    nearest: int,
    classes: Labels | None,
) -> tuple[np.ndarray, int]:
    """Return the recording of each prompt, int64 ``[n]``, and how many are of its own class.

    A request of a recorded class is answered within the class, every other one by any recording.
    """
    chosen, matched = recordings.near(prompts, draws, nearest), 0
    if classes is None:
        return chosen, matched
    recorded = np.array(recordings.classes.names)[recordings.classes.codes]
    for code, name in enumerate(classes.names):
        mine = np.flatnonzero(classes.codes == code)
        within = np.flatnonzero(recorded == name)
        if len(within) and len(mine):
            near = recordings.picked(within).near(prompts[mine], draws[mine], nearest)
            chosen[mine] = within[near]
            matched += len(mine)
    return chosen, matched


def stretched(
    recordings: Recordings, chosen: np.ndarray, prompts: np.ndarray, outputs: np.ndarray
) -> dict[str, int]:
    """Count how far a join goes beyond what was recorded."""
    beyond = np.maximum(outputs - recordings.output_tokens[chosen], 0)
    low, high = recordings.prompt_tokens[[0, -1]]
    return {
        "join_requests": len(prompts),
        "join_recordings_used": len(np.unique(chosen)),
        "join_tokens": int(outputs.sum()),
        "join_tokens_beyond_recordings": int(beyond.sum()),
        "join_prompts_outside_recorded": int(((prompts < low) | (prompts > high)).sum()),
    }


def join_line(caveats: Mapping[str, int]) -> str:
    """Say in one line how far a join goes beyond what was recorded."""
    tokens, requests = caveats["join_tokens"], caveats["join_requests"]
    beyond = caveats["join_tokens_beyond_recordings"] / tokens
    outside = caveats["join_prompts_outside_recorded"] / requests
    cut = caveats["join_requests_cut"]
    return (
        f"{requests} requests are answered by {caveats['join_recordings_used']} recordings: "
        f"{beyond:.1%} of their tokens lie beyond the recording and are bootstrapped from it, "
        f"{outside:.1%} of the prompts are shorter or longer than any recorded"
        + (f", {cut} were cut to fit" if cut else "")
    )


def templates(trace: Trace, asking: Asking) -> dict[int, Request]:
    """Return one checked request per recording: what all that it answers for have in common."""
    return {
        record.request: Request(
            request_id=0,
            prompt_tokens=record.prompt_tokens,
            max_tokens=1,
            temperature=record.temperature,
            target_nats=asking.target_nats,
            seed=record.seed,
            enabled=asking.enabled,
            one_sided=asking.one_sided,
            first_token_slo_s=asking.first_token_slo_s,
            task_class=record.task_class,
            client=record.task_class,
        )
        for record in trace.requests
        if record.output_tokens >= 1
    }


def predicted(outputs: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Return the mean output of the others of each request's class, tokens; NONE without others."""
    total, count = np.bincount(classes, outputs), np.bincount(classes)
    others = count[classes] - 1
    rest = total[classes] - outputs
    mean = np.divide(rest, others, out=np.zeros(len(outputs)), where=others > 0)
    return np.where(others > 0, np.maximum(np.rint(mean), 1), NONE).astype(np.int64)


def cancellations(times_ns: np.ndarray, asking: Asking, seed: int) -> np.ndarray:
    """Return when each user gives up, ns; NONE for those who stay."""
    if asking.cancel_share == 0.0:
        return np.broadcast_to(np.int64(NONE), len(times_ns))
    rng = stream(seed, PATIENCE)
    patience_ns = rng.standard_exponential(len(times_ns)) * (asking.patience_s * NS_PER_S)
    leaves = rng.random(len(times_ns)) < asking.cancel_share
    return np.where(leaves, times_ns + np.rint(patience_ns).astype(np.int64), NONE)


def require_room(
    arrivals: Arrivals, max_tokens: int | None, room: int, what: str, advice: str = ""
) -> None:
    """Raise for requests longer than ``what``, of ``room`` tokens, as they were before any cut."""
    prompts, outputs, _, _ = _fitted(arrivals, max_tokens, None)
    outputs = outputs if max_tokens is None else np.minimum(outputs, max_tokens)
    needed = prompts + outputs
    too_long = int((needed > room).sum())
    if too_long:
        at = int(np.argmax(needed))
        raise ValueError(
            f"{arrivals.source}: {too_long} of {len(needed)} requests are longer than {what}, "
            f"{room} tokens; the longest is request {at}: prompt {prompts[at]} + output "
            f"{outputs[at]} tokens{advice}"
        )


def _fitted(
    arrivals: Arrivals, max_tokens: int | None, max_total: int | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Return prompts, outputs and caps within ``max_total``, and how many requests were cut."""
    prompts, outputs = arrivals.prompt_tokens, arrivals.output_tokens
    if prompts is None or outputs is None:
        raise ValueError(f"a join needs lengths; got {arrivals.source}, which holds none")
    cap = int(outputs.max()) if max_tokens is None else max_tokens
    caps = np.broadcast_to(np.int64(cap), len(prompts))
    if max_total is None:
        return prompts, outputs, caps, 0
    require(max_total >= 2, "max_total must be >= 2", max_total=max_total)
    served = np.minimum(outputs, min(cap, max_total - 1))
    fitting = np.minimum(prompts, max_total - served)
    cut = (fitting < prompts) | (served < np.minimum(outputs, cap))
    return fitting, outputs, np.minimum(caps, max_total - fitting), int(cut.sum())
