"""Forced scoring: the same tokens under dense and pruned attention, side by side.

The prompt is prefilled densely, once. Then one lane per setting, and a dense one, decode the same
tokens in lockstep: each over the shared full pages of the prompt and pages of its own, so that a
lane attends the keys and values that its own pruned past has written, as in real decoding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from backend.models import LoadedModel
from backend.sparse import SparseAttention
from backend.steps import forward, prepare
from controllers.core import require
from controllers.selection import Pins
from controllers.serving.lanes import LaneBank
from controllers.serving.messages import Row
from reports.evaluation.lane import Lane, Scored, Step, command, note
from reports.evaluation.settings import Setting
from reports.evaluation.stores import Store, lanes_by_kind
from reports.evaluation.witness import PageWitness

CHUNK = 512  # prompt tokens in one forward pass
Choose = Callable[[int, Tensor], int | None]  # (tokens so far, dense logits [n]) -> next token


@dataclass(slots=True)
class _Group:
    """Lanes that one forward pass serves: one store, equal options of attention."""

    store: Store
    sparse: SparseAttention
    lanes: list[Lane]


class ForcedScorer:
    """Scores a model under several settings: ``prefill`` a prompt, then ``score`` texts after it.

    Tokens of a page, lengths and the step between looks at the true dropped mass (0 never) are
    fixed for its life, for it allocates its KV once.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        settings: Sequence[Setting],
        *,
        context: int,
        max_tokens: int,
        page_tokens: int = 16,
        look_every: int = 8,
    ) -> None:
        """Allocate KV for prompts of ``context`` tokens and ``max_tokens`` forced ones."""
        names = [setting.name for setting in settings]
        require(len(set(names)) == len(names) >= 1, "settings need names of their own", names=names)
        require(max_tokens >= 2, "max_tokens must be >= 2: the first token is the prefill's",
                max_tokens=max_tokens)  # fmt: skip
        require(context + max_tokens <= loaded.max_context,
                f"context + max_tokens must be <= {loaded.max_context}, the model's context",
                context=context, max_tokens=max_tokens)  # fmt: skip
        self.loaded, self.settings = loaded, tuple(settings)
        self.context, self.max_tokens, self.look_every = context, max_tokens, look_every
        self.pins = Pins()
        kinds = lanes_by_kind([setting.sparse for setting in settings])
        self._lane_of: dict[int, tuple[Store, int]] = {}  # by number of the setting
        self._stores: list[Store] = []
        for numbers in kinds.values():
            sparse = settings[numbers[0]].sparse if numbers else SparseAttention()
            store = Store(loaded, sparse, page_tokens=page_tokens, prompt_tokens=context,
                          tail_tokens=max_tokens, lanes=len(numbers) + 1)  # fmt: skip
            for lane, number in enumerate(numbers, start=1):
                self._lane_of[number] = (store, lane)
            self._stores.append(store)
        self._prompt: list[int] = []
        self._first = torch.empty(0)

    @torch.no_grad()
    def prefill(self, prompt: Sequence[int]) -> Tensor:
        """Compute a prompt densely; return the logits of the first token after it, ``[n]``."""
        require(1 <= len(prompt) <= self.context, f"prompt must have 1 to {self.context} tokens",
                tokens=len(prompt))  # fmt: skip
        self._prompt = list(prompt)
        source = self._stores[0]
        table = {0: source.table(0, len(prompt))}
        for start in range(0, len(prompt), CHUNK):
            end = min(start + CHUNK, len(prompt))
            row = _row(0, start, end - start, samples=end == len(prompt))
            step = prepare([row], table, source.cache, self.pins)
            logits = forward(self.loaded.model, self._prompt[start:end], [row], step)
        self._first = logits[0]  # pyright: ignore[reportPossiblyUnboundVariable]  # not empty
        for store in self._stores[1:]:
            store.copy_prompt(source, len(prompt))
        return self._first

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the prefilled prompt."""
        return len(self._prompt)

    @torch.no_grad()
    def score(self, choose: Choose) -> tuple[list[int], dict[str, Scored]]:
        """Force what ``choose`` says until it says None or ``max_tokens`` are there.

        The first token is the prefill's, so it is forced but not scored. Returns the tokens, and by
        setting what it gave on the others.
        """
        require(bool(self._prompt), "prefill must come before score")
        groups = self._groups()
        for group in groups:
            self._fork(group)
            command(group.lanes, self._first.expand(len(group.lanes), -1), 0)
        tokens: list[int] = []
        dense, steps = self._first, list[Step]()
        while len(tokens) < self.max_tokens:
            following = choose(len(tokens), dense)
            if following is None:
                break
            for group, step in zip(groups, steps, strict=False):  # no steps before the first token
                note(group.lanes, step, dense, following)
            tokens.append(following)
            if len(tokens) < self.max_tokens:
                steps = [self._step(group, tokens) for group in groups]
                dense = steps[0].logits[0]
        lanes = [lane for group in groups for lane in group.lanes]
        found = {lane.setting.name: lane.found for lane in lanes if lane.setting is not None}
        return tokens, {setting.name: found[setting.name] for setting in self.settings}

    def _groups(self) -> list[_Group]:
        first = self._stores[0]
        dense = Lane(None, 0, None)
        groups = [_Group(first, SparseAttention(), [dense])]
        for i, setting in enumerate(self.settings):
            store, number = self._lane_of[i]
            lane = Lane(setting, number, LaneBank(setting.coverage))
            for group in groups:
                if group.store is store and group.sparse == setting.sparse:
                    group.lanes.append(lane)
                    break
            else:
                groups.append(_Group(store, setting.sparse, [lane]))
        return groups

    def _fork(self, group: _Group) -> None:
        """Compute the prompt's last page again, for each lane into a page of its own."""
        length = len(self._prompt)
        start = group.store.full_pages(length) * group.store.page_tokens
        rows = [_row(lane.number, start, length - start, samples=False) for lane in group.lanes]
        step = prepare(rows, self._tables(group), group.store.cache, self.pins)
        forward(self.loaded.model, self._prompt[start:] * len(rows), rows, step)

    def _tables(self, group: _Group) -> dict[int, list[int]]:
        length = len(self._prompt)
        return {lane.number: group.store.table(lane.number, length) for lane in group.lanes}

    def _step(self, group: _Group, tokens: list[int]) -> Step:
        """Decode the last of ``tokens`` in every lane."""
        generated = len(tokens)
        start = len(self._prompt) + generated - 1
        asked = tuple(lane.coverage(start + 1, generated) for lane in group.lanes)
        rows = [
            _row(lane.number, start, 1, coverage=coverage)
            for lane, coverage in zip(group.lanes, asked, strict=True)
        ]
        step = prepare(rows, self._tables(group), group.store.cache, self.pins, sparse=group.sparse)
        assert step.decode is not None
        exact = self.look_every > 0 and generated % self.look_every == 0
        watch = PageWitness(step.decode.coverage, group.sparse.dense_layers, exact=exact)
        step.witness = watch
        logits = forward(self.loaded.model, [tokens[-1]] * len(rows), rows, step)
        command(group.lanes, logits, generated)
        return Step(logits, asked, watch)


def _row(
    request_id: int, start: int, n: int, *, samples: bool = True, coverage: float = 1.0
) -> Row:
    return Row(request_id, start, n, samples, coverage, False)
