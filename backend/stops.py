"""Where a reply ends, and its text as it grows: detokenisation and stop strings, piece by piece.

The text of a reply is defined offline: decode all its tokens, cut before the stop string that is
completed first; of two completed by the same character, the longer one. What ``Reply`` releases
joins to exactly that text, however its characters fall into tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from controllers.core import require

Decode = Callable[[Sequence[int]], str]
UNDECIDED = "\ufffd"  # what decoders put for bytes that are no character, or not one yet
UNSETTLED = 32  # fresh tokens past which what can be no character is settled


def check_stops(stops: Sequence[str]) -> None:
    """Raise ``ValueError`` unless ``stops`` is a sequence of non-empty strings."""
    require(not isinstance(stops, str), "stop must be a sequence of strings", stop=stops)
    for stop in stops:
        require(isinstance(stop, str) and stop != "", "a stop string must not be empty", stop=stop)


class Detokeniser:
    """Turns tokens into text one at a time; the pieces join to ``decode`` of all of them.

    Bytes at the end that are no whole character yet are held back. Each step decodes the tokens
    since the last whole character and, for decoders that look back, those of the piece before.
    Exact for byte-level vocabularies. A decoder that judges a run of byte tokens as a whole, as
    SentencePiece's fallback does, may spell a run that is no UTF-8 differently here.
    """

    def __init__(self, decode: Decode) -> None:
        self._decode = decode
        self._context: list[int] = []
        self._fresh: list[int] = []
        self._given = 0  # characters of the fresh tokens' text already returned

    def push(self, token: int) -> str:
        """Take one token; return the characters it makes certain."""
        self._fresh.append(token)
        text = self._text()
        piece = text.rstrip(UNDECIDED)[self._given :]
        self._given += len(piece)
        if text and not text.endswith(UNDECIDED):
            self._context, self._fresh, self._given = self._fresh, [], 0
        elif len(self._fresh) > UNSETTLED:
            piece += self._settle()
        return piece

    def _settle(self) -> str:
        """Let go of the first half of a long run of bytes that are no character.

        A run is cut only where both sides decode to the same text apart as together. Without such
        a place nothing is let go of.
        """
        whole = self._text()
        for cut in range(len(self._fresh) // 2, len(self._fresh) // 2 + 4):
            head, tail = self._fresh[:cut], self._fresh[cut:]
            before, after = self._decode(head), self._decode(tail)
            if before and after and before + after == whole and len(before) >= self._given:
                piece = before[self._given :]
                self._context, self._fresh, self._given = head, tail, 0
                return piece
        return ""

    def finish(self) -> str:
        """Return what was held back; no token may follow."""
        return self._text()[self._given :] if self._fresh else ""

    def _text(self) -> str:
        before = self._decode(self._context) if self._context else ""
        joined = self._decode([*self._context, *self._fresh])
        return joined[len(before) :] if joined.startswith(before) else self._decode(self._fresh)


class StopScanner:
    """Lets text through up to the first stop string; holds back what may be the start of one."""

    def __init__(self, stops: Sequence[str]) -> None:
        check_stops(stops)
        self._stops = tuple(stops)
        self._held = ""
        self.found: str | None = None

    def push(self, text: str) -> str:
        """Take text; return what certainly lies before any stop string."""
        if self.found is not None:
            return ""
        self._held += text
        ends = [(at + len(stop), at) for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if ends:
            end, start = min(ends)
            self.found = self._held[start:end]
            cut = start
        else:
            cut = len(self._held) - self._beginning()
        released = self._held[:cut]
        self._held = "" if ends else self._held[cut:]
        return released

    def finish(self) -> str:
        """Return what was held back: no stop string came of it."""
        released, self._held = self._held, ""
        return released

    def _beginning(self) -> int:
        """Return the length of the longest end of the text that begins a stop string."""
        longest = max((len(stop) for stop in self._stops), default=1) - 1
        for n in range(min(longest, len(self._held)), 0, -1):
            if any(stop.startswith(self._held[-n:]) for stop in self._stops):
                return n
        return 0


class Reply:
    """The text of one request as it grows, and whether it has ended.

    A stop token or string ends it and is not part of the text. The executor pushes tokens; whoever
    streams takes the text.
    """

    def __init__(
        self, decode: Decode, *, stop_ids: Collection[int] = (), stops: Sequence[str] = ()
    ) -> None:
        self._tokens = Detokeniser(decode)
        self._scanner = StopScanner(stops)
        self._stop_ids = frozenset(stop_ids)
        self._pieces: list[str] = []
        self._taken = 0
        self.stop_reason: str | int | None = None  # the stop string or token that ended it

    @property
    def text(self) -> str:
        """All that was released so far."""
        return "".join(self._pieces)

    def push(self, token: int) -> bool:
        """Take the next token; return whether the reply ends with it."""
        if token in self._stop_ids:
            self.stop_reason = token
            return True
        self._release(self._scanner.push(self._tokens.push(token)))
        self.stop_reason = self._scanner.found
        return self.stop_reason is not None

    def finish(self) -> None:
        """Release what was held back: no token will follow."""
        self._release(self._scanner.push(self._tokens.finish()))
        self._release(self._scanner.finish())

    def take(self) -> str:
        """Return what was released since the last call."""
        piece = "".join(self._pieces[self._taken :])
        self._taken = len(self._pieces)
        return piece

    def _release(self, piece: str) -> None:
        if piece:
            self._pieces.append(piece)
