"""Follows a run from outside and holds every decision in its log against what it sees."""

from __future__ import annotations

from collections import defaultdict

from controllers.serving.decisions import DecisionLog, Why
from controllers.serving.loop import ServingLoop
from controllers.serving.messages import Plan
from tests.serving.worlds import (
    MS,
    STEP_LAW,
    ByTask,
    FakeExecutor,
    World,
    limits,
    preset,
    request,
    uniform,
)

QUANTUM = 3


def crowded(name: str, seed: int, witness: DecisionLog | None) -> tuple[World, list[Plan]]:
    """Serve a crowd where slots, pages and the budget bind."""
    presets = {
        "fcfs": preset(),
        "quantum": preset("seed", quantum_tokens=QUANTUM),
        "by_size": preset(priority=ByTask(weight=1.0), quantum_tokens=QUANTUM),
        "unreserved": preset(priority=ByTask(weight=1.0, reserves=False)),
    }
    using = presets[name]
    loop = ServingLoop(limits(n_pages=14), using, STEP_LAW, witness=witness)
    w = World(loop, FakeExecutor(seed=seed, stop_share=0.05, law=using.temperature))
    plans, coming = [], list(range(24))
    while coming or loop.has_work:
        for _ in range(int(3 * uniform(seed, len(plans)))):
            if coming:
                i = coming.pop(0)
                prompt = 1 + int(22 * uniform(seed, 1, i))
                w.submit(request(i, prompt=prompt, length=1 + int(14 * uniform(seed, 2, i))))
        if len(plans) == 30:
            w.loop.cancel(next(iter(loop.sequences), 0), w.now_ns)
        plans.append(w.step())
        w.now_ns += MS if not plans[-1].rows else 0
    return w, plans


class Onlooker:
    """Follows plans and knows lengths, and nothing of what the log says."""

    def __init__(self, w: World) -> None:
        self.limits = w.loop.limits
        requests = w.loop.ledger.requests
        self.prompt = dict(zip(requests["request_id"], requests["prompt_tokens"], strict=True))
        self.running: dict[int, int] = {}  # tokens sampled since admission
        self.context: dict[int, int] = {}  # prompt and generated tokens

    def check(self, row: dict, plan: Plan, waiting: set[int]) -> None:
        ranks = {i: (rank, score, side) for rank, i, score, side in row.get("ranked", ())}
        assert [(r[0], *r[2:5], r[6]) for r in row["rows"]] == [
            (r.request_id, r.start, r.n_tokens, r.coverage, r.evict) for r in plan.rows
        ]
        assert tuple(p[0] for p in row["preempted"]) == plan.preempted
        admitted = [r[0] for r in row["rows"] if r[1] == Why.ADMITTED]
        assert set(admitted) == {r.request_id for r in plan.rows} - set(self.running)
        self.shortages(row, ranks, plan)
        self.displacements(row, ranks, plan)
        for i in plan.preempted:
            waiting.add(i)
            del self.running[i]
        waiting.difference_update(admitted)
        self.running.update(dict.fromkeys(admitted, 0))
        self.order(row, ranks, admitted, waiting)
        self.blocked(row, plan, waiting)
        for r in plan.rows:
            self.context.setdefault(r.request_id, self.prompt[r.request_id])

    def shortages(self, row: dict, ranks: dict, plan: Plan) -> None:
        gone = [(p[0], p[2]) for p in row["preempted"] if p[1] == Why.SHORTAGE]
        if not gone:
            return
        assert set(ranks) == set(self.running)  # all residents were ranked
        lowest_first = sorted(ranks, key=lambda i: ranks[i][0], reverse=True)
        assert [victim for victim, _ in gone] == lowest_first[: len(gone)]
        for _, needy in gone:  # stands at a page boundary, with one token to go
            assert (self.context[needy] - 1) % self.limits.page_tokens == 0

    def displacements(self, row: dict, ranks: dict, plan: Plan) -> None:
        for victim, why, other in row["preempted"]:
            if why == Why.DISPLACED:
                assert self.running[victim] >= QUANTUM
                assert ranks[other][1] > ranks[victim][1]
                assert other in {r.request_id for r in plan.rows}

    def order(self, row: dict, ranks: dict, admitted: list[int], waiting: set[int]) -> None:
        if "pinned" in row:
            assert ranks[row["pinned"]][0] == 1
            assert row["pinned"] in {*admitted, *waiting}
        places = [ranks[i][0] for i in admitted]
        assert places == sorted(places)
        passed = [i for i in waiting if i in ranks and ranks[i][2] == "waiting"]
        assert all(ranks[i][0] > max(places, default=0) for i in passed)

    def blocked(self, row: dict, plan: Plan, waiting: set[int]) -> None:
        queue = row["queue"]
        assert (queue is None) == (not waiting)
        if queue is None:
            return
        assert queue["n"] == len(waiting)
        if "head" in queue:
            known = self.context.get(queue["head"], self.prompt[queue["head"]])
            assert queue["needs"] == self.limits.pages_for(known + 1)
            assert queue["head"] in waiting
        match Why(queue["why"]):
            case Why.NO_SLOT | Why.HEAD_NO_SLOT:
                assert len(self.running) == self.limits.max_seqs
            case Why.NO_TOKENS:
                assert sum(r.n_tokens for r in plan.rows) == self.limits.token_budget
            case Why.HEAD_SHORT | Why.PINNED_SHORT:
                assert queue["needs"] > row["free_pages"]
            case Why.NO_ADMISSION:
                assert any(p[1] == Why.SHORTAGE for p in row["preempted"])
            case Why.DISPLACED:
                assert waiting <= {p[0] for p in row["preempted"]}

    def served(self, plan: Plan, tokens: dict[int, int]) -> None:
        for i in plan.sampled:
            if i in self.running:
                self.running[i] += 1
                self.context[i] += 1
        for i in [i for i in self.running if tokens[i] == 0]:
            del self.running[i]


def replayed(name: str, seed: int) -> tuple[list[dict], dict[str, int]]:
    """Check one run from its log; return the rows and how often each rule applied."""
    rows: list[dict] = []
    w, plans = crowded(name, seed, DecisionLog(rows.append))
    decisions = [r for r in rows if r["kind"] == "decision"]
    assert [r["step"] for r in decisions] == [p.step for p in plans]
    onlooker, waiting, seen = Onlooker(w), set(), defaultdict(int)
    left: dict[int, int] = {}
    for index, row in enumerate(rows):
        if row["kind"] == "arrived":
            waiting.add(row["request_id"])
        elif row["kind"] == "left":
            waiting.discard(row["request_id"])
            onlooker.running.pop(row["request_id"], None)
            left[row["request_id"]] = row["tokens"]
        else:
            plan = plans[row["step"]]
            onlooker.check(row, plan, waiting)
            alive = defaultdict(lambda: 1)
            for later in rows[index + 1 :]:
                if later["kind"] == "decision":
                    break
                if later["kind"] == "left":
                    alive[later["request_id"]] = 0
            onlooker.served(plan, alive)
            for rule in [r[1] for r in (*row["rows"], *row["preempted"])]:
                seen[rule] += 1
            if row["queue"] is not None:
                seen[row["queue"]["why"]] += 1
            seen[Why.PINNED] += "pinned" in row
    requests = w.loop.ledger.requests
    assert left == dict(zip(requests["request_id"], requests["tokens"], strict=True))
    return rows, seen
