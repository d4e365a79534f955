"""The events of a trace one by one, from text that comes in pieces and may be damaged.

A trace is an object whose ``traceEvents`` is an array of objects, or such an array alone. Only the
window of text around one event is in memory. Python's own JSON scanner does the parsing; ijson was
measured beside it and set aside. On Kineto's layout the scanner reads 84 MB/s with the look-out for
repeated keys and ijson 70 MB/s without, and a single NaN, bad byte or unescaped quote ends an ijson
stream, while here it costs one event: the text is searched for the next one and read on from there.

Numbers with a fraction or exponent come as ``bytes`` of their digits, since a float of a time loses
nanoseconds. An object with a key of ``WATCHED`` twice has the entry ``REPEATED``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from moeprof.errors import RecordError
from moeprof.importing.json_text import EXPECTED

EVENTS = "traceEvents"
# what is kept of the rest of the document; names of hosts, jobs and paths lie beside it
HEADER = (
    *("schemaVersion", "deviceProperties", "cuda_runtime_version", "displayTimeUnit"),
    *("cuda_driver_version", "cupti_version"),
)
WATCHED = frozenset(
    ("ph", "cat", "name", "pid", "tid", "ts", "dur", "id", "args")
    + ("correlation", "device", "stream", "bytes", "grid", "block", "graph node id")
)
REPEATED: Any = None  # no key of JSON

EVENT_CHARACTERS = 1 << 20  # the longest events seen, operators with shapes and stacks: 20,000
OTHER_CHARACTERS = 64 << 20  # of a value beside the events
DAMAGE_CHARACTERS = 64 << 20  # parsed in vain, after which the rest of the file is given up

_FILLER = re.compile(r"[ \t\r\n,]*")
_SPACE = re.compile(r"[ \t\r\n]*")
_NEXT_EVENT = re.compile(r'\{\s*"(?:ph|name|cat|pid|tid|ts|args|id|dur|s|bp)"\s*:')
_EVENTS_KEY = re.compile(r'"traceEvents"\s*:\s*\[')
_LONGEST_MATCH = 200
# what C++ and early versions of Kineto wrote for numbers that are none
_BARE_WORD = re.compile(r'(":\s*)-?(?:inf|nan|N/A)(?=\s*[,}\]])')


class _Damaged(Exception):
    """No JSON value here. at_end: it might have become one, had the file not ended."""

    def __init__(self, at_end: bool = False) -> None:
        self.at_end = at_end


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        if any(keys.count(key) > 1 for key in WATCHED.intersection(keys)):
            found[REPEATED] = True
    return found


class EventStream:
    """Iterate over it once: every value in the array of events, most of them ``dict``.

    header: entries of the document named in ``HEADER``, complete when the iteration ends.
    damaged: places that are no JSON and were skipped. cut_short: the document does not end.
    followed: there is more text after its end. given_up: too much damage to read on.
    """

    def __init__(self, pieces: Iterator[str]) -> None:
        self._pieces = pieces
        self._text = ""
        self._at = 0
        self._ended = False
        self._in_vain = 0
        self._parse = json.JSONDecoder(
            object_pairs_hook=_object, parse_float=str.encode, strict=False
        ).raw_decode
        self.header: dict[str, Any] = {}
        self.damaged = 0
        self.cut_short = self.followed = self.given_up = False

    def __iter__(self) -> Iterator[Any]:
        opening = self._next(_SPACE)
        self._at += 1
        if opening == "[":
            yield from self._events(bare=True)
        elif opening == "{":
            yield from self._document()
        else:
            raise RecordError("this is not JSON", EXPECTED)
        if not (self.given_up or self.cut_short):
            self.followed = self._next(_SPACE) != ""

    # -- the document -----------------------------------------------------------------------

    def _document(self) -> Iterator[Any]:
        has_events = False
        while (character := self._next(_FILLER)) != "}":
            try:
                is_events = self._member(character)
            except _Damaged as damage:
                is_events = not has_events and self._find(_EVENTS_KEY)
                self._count(damage, is_events)
            if is_events:
                has_events = True
                yield from self._events()
            if self.given_up or self.cut_short:
                break
        self._at += 1
        if not has_events:
            raise RecordError(f"this is JSON without {EVENTS}", EXPECTED)

    def _member(self, character: str) -> bool:
        """Read a key and its value; True, just inside the array, if they are the events."""
        if character != '"':
            raise _Damaged(at_end=not character)
        key = self._value(EVENT_CHARACTERS)
        if (colon := self._next(_SPACE)) != ":":
            raise _Damaged(at_end=not colon)
        self._at += 1
        if self._next(_SPACE) == "[" and key == EVENTS:
            self._at += 1
            return True
        value = self._value(OTHER_CHARACTERS)
        if key in HEADER:
            self.header[key] = value
        return False

    def _events(self, bare: bool = False) -> Iterator[Any]:
        """Values up to the closing bracket, which the format allows a bare array to lack."""
        while (character := self._next(_FILLER)) != "]":
            if not character:
                self.cut_short = not bare
                return
            try:
                value = self._value(EVENT_CHARACTERS)
            except _Damaged as damage:
                value = self._next_sound_event()
                self._count(damage, value is not None)
                if value is None:
                    return
            yield value
        self._at += 1

    # -- damage -----------------------------------------------------------------------------

    def _next_sound_event(self) -> dict[str, Any] | None:
        """Skip what is damaged, up to and with the next event; None if there is none."""
        while self._in_vain <= DAMAGE_CHARACTERS:
            self._at += 1
            if not self._find(_NEXT_EVENT):
                return None
            try:
                value = self._value(EVENT_CHARACTERS)
            except _Damaged:
                continue
            if type(value) is dict and "ph" in value:
                return value
        return None

    def _count(self, damage: _Damaged, found_more: bool) -> None:
        if damage.at_end and not found_more:
            self.cut_short = True
        else:
            self.damaged += 1
        self.given_up = not found_more

    def _find(self, pattern: re.Pattern[str]) -> bool:
        """Go to the begin of the next event, or behind the key of the events; False at the end."""
        while True:
            match = pattern.search(self._text, self._at)
            if match:
                self._at = match.end() if pattern is _EVENTS_KEY else match.start()
                return True
            self._at = max(self._at, len(self._text) - _LONGEST_MATCH)
            if not self._more():
                return False

    # -- the window -------------------------------------------------------------------------

    def _next(self, filler: re.Pattern[str]) -> str:
        """The next character that is no filler, which is not passed; '' at the end of the file."""
        while True:
            self._at = filler.match(self._text, self._at).end()  # type: ignore[union-attr]
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                return ""

    def _value(self, most: int) -> Any:
        """Parse the value that begins here and pass it; more text is fetched as it needs it.

        Raises _Damaged if it is none, or longer than ``most`` characters.
        """
        mended = False
        while True:
            try:
                value, end = self._parse(self._text, self._at)
            except (ValueError, RecursionError) as error:
                # no more text can mend what is nested too deeply
                too_deep = isinstance(error, RecursionError)
                if not mended and self._mend(error):
                    mended = True
                    continue
                held = len(self._text) - self._at
                if too_deep or held > most or not self._more(held):
                    tried = getattr(error, "pos", 0) - self._at
                    self._in_vain += max(tried, 20_000 if too_deep else 4_000)
                    raise _Damaged(self._ended and self._ran_out(error)) from None
                mended = False
                continue
            # a number at the end of the window may go on
            if end < len(self._text) or not self._more():
                self._at = end
                return value

    def _ran_out(self, error: Exception) -> bool:
        """Whether the parser wanted more text than there was."""
        if not isinstance(error, json.JSONDecodeError):
            return False
        return error.msg.startswith("Unterminated") or not self._text[error.pos :].strip()

    def _mend(self, error: Exception) -> bool:
        """Whether words that stand where a number should were made NaN from here on."""
        if not isinstance(error, json.JSONDecodeError) or error.pos >= len(self._text):
            return False
        if self._text[error.pos] not in "inN-":
            return False
        rest, count = _BARE_WORD.subn(r"\1NaN", self._text[self._at :])
        self._text, self._at = rest, 0
        return count > 0

    def _more(self, least: int = 0) -> bool:
        """Let go of text that was passed and fetch at least one piece; False at the end."""
        if self._ended:
            return False
        pieces = [self._text[self._at :]]
        fetched = 0
        for piece in self._pieces:
            pieces.append(piece)
            fetched += len(piece)
            if fetched > least:
                break
        self._text, self._at = "".join(pieces), 0
        self._ended = fetched == 0
        return fetched > 0
