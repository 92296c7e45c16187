"""What a server must have kept when nothing is left to do, and what it must not have known."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import numpy as np

from controllers.serving.ledger import CANCELLED
from controllers.serving.rows import LogRow
from controllers.serving.runlog import replay_commands, replay_plans
from reports.verify.serving_invariants import Broken
from reports.verify.serving_world import OTHER_FUTURE, ServingWorld


def finish(world: ServingWorld) -> None:
    """Serve what is left and judge the whole run; raise :class:`Broken` for what does not hold."""
    world.drain()
    breaches = {rule.__name__: seen for rule in FINAL_RULES if (seen := rule(world))}
    if breaches:
        raise Broken(breaches)


def foresee(world: ServingWorld) -> None:
    """Raise :class:`Broken` if a plan of the run depends on what is still to come; nothing else."""
    with suppress(Broken):
        if not world.broken:
            world.drain()
    seen = foreknowledge(world)
    if seen:
        raise Broken({"foreknowledge": seen})


def complete(world: ServingWorld) -> str:
    """Every request submitted has one end, and all pages are free."""
    counts = world.loop.ledger.counts()
    if counts["unfinished"] or counts["submitted"] != len(world.requests):
        return f"{len(world.requests)} requests were submitted, the ledger has {counts}"
    held = world.loop.scheduler.pool.n_held
    return f"{held} pages are held when nothing runs" if held else ""


def causality(world: ServingWorld) -> str:
    """Arrival, first service, first token and finish follow one another; steps never go back."""
    try:
        world.loop.ledger.check()
    except AssertionError as error:
        return str(error)
    return ""


def tokens(world: ServingWorld) -> str:
    """Each request got each of its tokens once, in order, and no more or fewer than it should."""
    ledger = world.loop.ledger
    owner, position = ledger.tokens["request_id"], ledger.tokens["position"]
    for request_id, request in world.requests.items():
        mine = position[owner == request_id]
        if mine.tolist() != list(range(len(mine))):
            return f"request {request_id} got tokens in the order {mine.tolist()}"
        cancelled = ledger.reasons[ledger.row_of[request_id]] == CANCELLED
        due = world.executor.length_of(request)
        if len(mine) > due or (len(mine) < due and not cancelled):
            return f"request {request_id} got {len(mine)} of {due} tokens"
    return ""


def recompute(world: ServingWorld) -> str:
    """Preemptions are paid for by tokens: at most ``max_seqs`` for each row that sampled.

    A step that preempts for pages gives its first decode row a token and takes at most all other
    residents; a displaced one has used up a quantum of at least one token since its admission.
    """
    preemptions = int(world.loop.ledger.requests["preemptions"].sum())
    most = world.setting.max_seqs * world.samples
    return f"{preemptions} preemptions for {world.samples} samples" if preemptions > most else ""


def load(world: ServingWorld) -> str:
    """Tokens, temperatures and coverage are those of the same request on an empty server.

    Temperatures and coverage of a request that was disabled follow when that was: not compared.
    A token that comes out of a recomputation is dense.
    """
    alone = ServingWorld(world.subject, world.setting, judged=False)
    for request_id, request in world.requests.items():
        stream = world.executor.streams.get(request_id, [])
        if not stream:
            continue
        alone.serve_alone(request)
        if alone.executor.streams[request_id][: len(stream)] != stream:
            return f"request {request_id} gives other tokens when it is alone"
        if request_id in world.disabled:
            continue
        crowded = _column(world, request_id, "command")
        lonely = _column(alone, request_id, "command")[: len(crowded)]
        if not np.array_equal(crowded, lonely, equal_nan=True):
            return f"request {request_id} gets other temperatures when it is alone"
        crowded, lonely = (_column(w, request_id, "coverage") for w in (world, alone))
        lonely = lonely[: len(crowded)]
        if not np.all((crowded == lonely) | ((crowded == 1.0) & _preempted(world, request_id))):
            return f"request {request_id} gets other coverage when it is alone"
    return ""


def replay(world: ServingWorld) -> str:
    """The same events give the same log, bit for bit, in another place of memory."""
    again = repeated(world)
    at = first_difference(world.log, again.log)
    if at is not None:
        return f"the log does not replay: row {at}, {_kind(world.log, at)}, came out differently"
    end = {"kind": "end", "now_ns": world.now_ns, "rows": len(world.log)}
    rows = [*world.log, end]
    plans = replay_plans(rows, world.preset, scheduler_type=world.subject.scheduler_type)
    commands = replay_commands(rows, world.preset)
    if not plans.identical:
        return f"plans do not replay from the log: {plans.differing[0]}"
    return "" if commands.identical else f"commands do not replay: {commands.differing[0]}"


def foreknowledge(world: ServingWorld) -> str:
    """No plan depends on what nobody can know yet: when requests will stop.

    A second world has the same past and other stops; until a result differs, plans may not.
    """
    if first_difference(world.log, repeated(world).log) is not None:
        return ""  # not deterministic: that is another rule's finding
    other = repeated(world, future=OTHER_FUTURE)
    at = first_difference(world.log, other.log)
    if at is None or _kind(world.log, at) != "plan":
        return ""
    step = world.log[at]["step"]
    return f"plan {step} changes with the stops to come, though all before it was the same"


def repeated(world: ServingWorld, *, future: int = 0) -> ServingWorld:
    """Run the operations of ``world`` again from an empty server; stop where it breaks."""
    # What orders by address orders otherwise in there.
    other = ServingWorld(world.subject, world.setting, future=future, judged=False, rising=False)
    with suppress(Broken):  # the logs are compared as far as they go
        for operation in world.operations:
            other.apply(operation)
        if world.draining:
            other.drain()
    return other


def first_difference(log: list[LogRow], other: list[LogRow]) -> int | None:
    """Return the first row in which two logs differ, or None."""
    for at, (row, second) in enumerate(zip(log, other, strict=False)):
        if row != second and repr(row) != repr(second):  # repr: NaN equals NaN
            return at
    return None if len(log) == len(other) else min(len(log), len(other))


def _column(world: ServingWorld, request_id: int, name: str) -> np.ndarray:
    table = world.loop.ledger.tokens
    return table[name][table["request_id"] == request_id]


def _preempted(world: ServingWorld, request_id: int) -> bool:
    ledger = world.loop.ledger
    return bool(ledger.requests["preemptions"][ledger.row_of[request_id]])


def _kind(log: list[LogRow], at: int) -> str:
    return str(log[at]["kind"]) if at < len(log) else "end"


FINAL_RULES: tuple[Callable[[ServingWorld], str], ...] = (
    complete,
    causality,
    tokens,
    recompute,
    load,
    replay,
)
