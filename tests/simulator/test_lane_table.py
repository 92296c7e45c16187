from __future__ import annotations

import numpy as np
import pytest
import torch

from controllers.core import TokenSignal
from controllers.presets import PRESETS, get_preset
from controllers.serving.lane_table import LaneTable
from controllers.serving.request import Request


def a_request(request_id: int, **changes: object) -> Request:
    fields = {"request_id": request_id, "prompt_tokens": 4, "max_tokens": 90, "temperature": 0.8}
    return Request(**(fields | changes))


def step(table: LaneTable, law: object, ids: tuple[int, ...], h: np.ndarray) -> np.ndarray:
    slots = table.slots(ids)
    state, signal = table.read(slots)
    h = torch.from_numpy(h) if isinstance(signal.x_user, torch.Tensor) else h
    signal = signal._replace(h_cal=h, v_cal=h, h_in=h, v_in=h)
    state, command = law.update(state, signal)
    table.write_state(slots, state)
    table.write_surprisal(slots, h)
    return np.asarray(command)


@pytest.mark.parametrize("name", PRESETS)
def test_lanes_follow_their_request_through_growth_reuse_and_company(name: str) -> None:
    law, rng = get_preset(name).temperature, np.random.default_rng(0)
    entropies = rng.uniform(0.1, 4.0, (40, 12)).astype(np.float32)  # request, step
    alone = {}
    for i in range(40):
        table = LaneTable(law, np.zeros(1, np.float32))
        table.add(a_request(i))
        alone[i] = [step(table, law, (i,), entropies[i, t : t + 1])[0] for t in range(12)]
    table, done = LaneTable(law, np.zeros(1, np.float32)), dict.fromkeys(range(40), 0)
    for _ in range(200):
        unfinished = [i for i in done if done[i] < 12]
        for i in unfinished[:20]:
            if i not in table:
                table.add(a_request(i))
        live = [i for i in unfinished if i in table]
        if not live:
            break
        ids = tuple(rng.permutation(live)[: rng.integers(1, 9)].tolist())
        at = np.array([entropies[i, done[i]] for i in ids])
        for i, command in zip(ids, step(table, law, ids, at), strict=True):
            assert command == alone[i][done[i]]
            done[i] += 1
            if done[i] == 12:
                table.release(i)
        table.check()
    assert done == dict.fromkeys(range(40), 12)
    assert len(table) == 0


@pytest.mark.parametrize("name", ["full", "seed", "best"])
def test_torch_lanes_give_the_same_commands_as_numpy_lanes(name: str) -> None:
    law, rng = get_preset(name).temperature, np.random.default_rng(1)
    tables = [LaneTable(law, np.zeros(1, np.float32)), LaneTable(law, torch.zeros(1))]
    for table in tables:
        for i in range(20):
            table.add(a_request(i, one_sided=i % 2 == 0))
    for _ in range(30):
        ids = tuple(rng.permutation(20)[:7].tolist())
        h = rng.uniform(0.1, 4.0, 7).astype(np.float32)
        ours, theirs = (step(table, law, ids, h) for table in tables)
        assert np.array_equal(ours, theirs)


def test_reads_are_copies_and_surprisal_is_carried() -> None:
    law = get_preset("full").temperature
    table = LaneTable(law, np.zeros(1, np.float32))
    for i in range(3):
        table.add(a_request(i))
    first = table.read(table.slots((0, 1)))[1]
    table.write_surprisal(table.slots((1, 0)), np.array([5.0, 7.0], np.float32))
    assert first.surprisal.tolist() == [0.0, 0.0]
    assert table.read(table.slots((0, 1)))[1].surprisal.tolist() == [7.0, 5.0]


def test_switches_and_caps_reach_the_signal() -> None:
    table = LaneTable(get_preset("full").temperature, np.zeros(1, np.float32))
    table.add(a_request(0))
    table.add(a_request(1, temperature=0.0))
    table.add(a_request(2, enabled=False))
    table.add(a_request(3, one_sided=True))

    def signal() -> TokenSignal:
        return table.read(table.slots((0, 1, 2, 3)))[1]

    assert signal().enabled.tolist() == [1.0, 0.0, 0.0, 1.0]
    assert signal().x_cap[3] == signal().x_user[3] < signal().x_cap[0]
    table.disable(0)
    assert signal().enabled.tolist() == [0.0, 0.0, 0.0, 1.0]


def test_one_lane_per_request() -> None:
    table = LaneTable(get_preset("full").temperature, np.zeros(1, np.float32))
    table.add(a_request(5))
    with pytest.raises(ValueError, match="request_id=5"):
        table.add(a_request(5))
