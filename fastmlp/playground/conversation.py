"""The messages of one page, and their answers.

A message is an object with a "type":

========  =============================  ====================================================================
type      more                           answer
========  =============================  ====================================================================
hello     settings, of the address       the fields of the page, then as for settings
settings  settings                       "settings" (text): settings, problems, code; a scene; a view
advance   epochs, 1 to 1000              a view
reset                                    "settings", a scene, a view
code                                     "code" (text)
========  =============================  ====================================================================

Texts are JSON with a "type"; scenes and views are binary (frames.py), with a "type" in the header.  A message that
makes no sense is answered by an "error" with a text; nothing else changes then.
"""

from __future__ import annotations

import json
import time
from typing import Any

import numpy as np

from fastmlp.playground import settings
from fastmlp.playground.data import DATA_SETS, Table, draw
from fastmlp.playground.frames import packed
from fastmlp.playground.session import Session
from fastmlp.playground.settings import TABLE, SettingsError

MOST_EPOCHS = 1000

#: Longest time of one update in seconds; what is left of its epochs is done in the next.
UPDATE_SECONDS = 0.1

#: Points of the small picture of a data set.
THUMBNAIL_POINTS = 120


class Conversation:
    """One page's session, spoken to by messages."""

    def __init__(self, table: Table | None = None) -> None:
        self.table = table
        self.session = Session(table)

    def answer(self, message: str) -> list[str | bytes]:
        """Return the answers to a message; it may be any text."""
        try:
            given = json.loads(message)
        except (ValueError, RecursionError):
            return [_text("error", text="a message must be JSON")]
        kind = given.get("type") if isinstance(given, dict) else None
        match kind:
            case "hello":
                return [self._hello(), *self._settings(given.get("settings", {}))]
            case "settings":
                return self._settings(given.get("settings"))
            case "reset":
                self.session.reset()
                return self._shown(True, {})
            case "advance":
                return self._advance(given.get("epochs", 1))
            case "code":
                return [_text("code", code=self.session.code)]
        return [_text("error", text=f"there is no message of the type {str(kind)[:40]!r}")]

    def _hello(self) -> str:
        fields = settings.described(self.session.defaults)
        sets = {name: row.task for name, row in DATA_SETS.items()}
        pictures = {name: self._picture(name) for name in DATA_SETS}
        if self.table is not None:
            fields["dataset"]["names"] = {TABLE: self.table.target, **fields["dataset"]["names"]}
            sets[TABLE], pictures[TABLE] = self.table.task, self._picture(TABLE)
        return _text("hello", fields=fields, tasks=sets, pictures=pictures)

    def _picture(self, name: str) -> dict[str, list[Any]]:
        source = self.table if name == TABLE and self.table is not None else name
        points, y = draw(source, THUMBNAIL_POINTS, 0.03, 0)
        return {"points": points.round(2).tolist(), "targets": np.asarray(y, float).round(2).tolist()}

    def _settings(self, given: Any) -> list[str | bytes]:
        wanted, problems = settings.read(given, self.session.settings, has_table=self.table is not None)
        try:
            is_new = self.session.apply(wanted)
        except SettingsError as error:
            is_new, problems = False, {**problems, **error.problems}
        return self._shown(is_new, problems)

    def _shown(self, is_new: bool, problems: dict[str, str]) -> list[str | bytes]:
        session = self.session
        text = _text("settings", settings=session.settings, problems=problems, isNew=is_new, code=session.code)
        header, arrays = session.scene()
        return [text, packed({"type": "scene", **header}, arrays), self._view(0.0)]

    def _advance(self, epochs: Any) -> list[str | bytes]:
        if type(epochs) is not int or not 1 <= epochs <= MOST_EPOCHS:
            return [_text("error", text=f"epochs must be a whole number from 1 to {MOST_EPOCHS}")]
        begin = time.perf_counter()
        self.session.advance(epochs, UPDATE_SECONDS)
        return [self._view(time.perf_counter() - begin)]

    def _view(self, seconds: float) -> bytes:
        header, arrays = self.session.view()
        return packed({"type": "view", "seconds": seconds, **header}, arrays)


def _text(kind: str, **more: Any) -> str:
    return json.dumps({"type": kind, **more})
