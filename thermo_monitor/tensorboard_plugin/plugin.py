"""The tab's requests. Everything is read through TensorBoard's data provider; no path comes out of a request."""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Callable, Mapping
from typing import Any

from tensorboard import errors, plugin_util
from tensorboard.backend import http_util
from tensorboard.context import RequestContext
from tensorboard.plugins import base_plugin
from werkzeug import wrappers

from thermo_monitor.tensorboard_plugin import curves, events, frames, listing, wire
from thermo_monitor.tensorboard_plugin.assets import files
from thermo_monitor.tensorboard_plugin.checkpoints import saved
from thermo_monitor.tensorboard_plugin.listing import EVENTS, HEADS, Log
from thermo_monitor.tensorboard_plugin.plain import Plain
from thermo_monitor.tensorboard_plugin.words import words

FIRST = "1"  # name of the tab where it comes first, see ``first``
_LONGEST = 200_000  # characters of a question: 400 runs with long names


class Refused(ValueError):
    """A question that makes no sense; the text is for whoever asked."""


class ThermoPlugin(base_plugin.TBPlugin):  # type: ignore[misc]
    """Serves the page and the data.

    =================  ==============================================================================================
    route              answer
    =================  ==============================================================================================
    ``/static/*``      the files of the page, a fixed list
    ``/words``         names and meanings of quantities, phases and kinds
    ``/state``         runs, tags and a token; with ``?token=`` of now, only that nothing changed
    ``/events``        events of all monitored runs, and of the unmonitored ones in ``q={"runs": [...]}``
    ``/series``        curves of ``q={"runs": [...], "tags": [...]}``, binary
    ``/frames``        layers and heads of ``q={"run": ..., "tag": ..., "after": step}``, binary
    ``/events.csv``    the events of ``q={"runs": [...]}`` as a table
    =================  ==============================================================================================
    """

    plugin_name = EVENTS

    def __init__(self, context: Any) -> None:
        super().__init__(context)
        self._provider = context.data_provider
        self._logdir = context.logdir or ""
        tabs = context.plugin_name_to_instance
        self._tabs: Mapping[str, Any] = {} if tabs is None else tabs  # fills while TensorBoard starts
        self._plain = Plain()
        self._files = files()

    def data_plugin_names(self) -> tuple[str, ...]:
        """Data with one of these names makes the tab active; plain numbers do too, since changes are found in them."""
        return () if FIRST in self._tabs else (EVENTS, HEADS, "scalars")

    def is_active(self) -> bool:
        """Where the tab may also come first: with numbers in a log that holds nothing of ours."""
        return FIRST in self._tabs and "scalars" in self._data() and not self._data() & {EVENTS, HEADS}

    def frontend_metadata(self) -> Any:
        """An ES module in a frame of its own; where the tab comes first, one that sends links on to it."""
        onward = self.plugin_name != FIRST and FIRST in self._tabs and bool(self._data() & {EVENTS, HEADS})
        page = "/static/onward.js" if onward else "/static/index.js"
        return base_plugin.FrontendMetadata(es_module_path=page, tab_name="Thermo")

    def _data(self) -> set[str]:
        """Names of the data that the log holds."""
        return set(self._provider.list_plugins(RequestContext(), experiment_id="") or ())

    def get_plugin_apps(self) -> dict[str, Any]:
        """Paths and what answers there."""
        return {
            "/static/*": self._static(),
            "/words": self._answers(lambda log, ask: wire.dumps(words())),
            "/state": self._answers(self._state),
            "/events": self._answers(self._events),
            "/series": self._answers(_series),
            "/frames": self._answers(_frames),
            "/events.csv": self._answers(self._table),
        }

    def _answers(self, work: Callable[[Log, Any], str | bytes]) -> Any:
        """A WSGI application around a function of the log and the question."""

        @wrappers.Request.application
        def application(request: Any) -> Any:
            if request.method not in ("GET", "HEAD"):
                return _respond(request, wire.dumps({"error": "only GET is answered here"}), 405)
            log = Log(self._provider, plugin_util.context(request.environ), plugin_util.experiment_id(request.environ))
            try:
                return _respond(request, work(log, request.args))
            except Refused as error:
                return _respond(request, wire.dumps({"error": str(error)}), 400)
            except errors.PublicError as error:
                return _respond(request, wire.dumps({"error": str(error)}), error.http_code)

        return application

    def _static(self) -> Any:
        """A file of the page: looked up in a list, compressed once; no path that came with a request is followed."""

        @wrappers.Request.application
        def application(request: Any) -> Any:
            found = self._files.get(request.path.rpartition("/static/")[2])
            if found is None:
                return http_util.Respond(request, "no such file", "text/plain", code=404)
            content, kind = found
            return http_util.Respond(request, content, kind, content_encoding="gzip")

        return application

    def _state(self, log: Log, ask: Mapping[str, str]) -> str:
        runs = listing.find(log)
        mark = listing.token(runs)
        if ask.get("token") == mark:
            return wire.dumps({"token": mark, "unchanged": True})
        return wire.dumps({"token": mark, "logdir": self._logdir, **listing.state(runs)})

    def _found(self, log: Log, ask: Mapping[str, str]) -> dict[str, list[dict[str, Any]]]:
        chosen = set(_texts(_question(ask), "runs")) if "q" in ask else set()
        found = events.read(log)
        runs = listing.find(log) if chosen - found.keys() else {}
        unmonitored = {run: runs[run] for run in chosen if run in runs and not runs[run].monitored}
        for run, of_run in found.items():
            for event in of_run:
                event["checkpoint"] = saved(self._logdir, run, event)
        return {**found, **self._plain.events(log, unmonitored)}

    def _events(self, log: Log, ask: Mapping[str, str]) -> str:
        return wire.dumps({"events": self._found(log, ask)})

    def _table(self, log: Log, ask: Mapping[str, str]) -> str:
        chosen = _texts(_question(ask), "runs")
        found = self._found(log, ask)
        return events.table({run: found[run] for run in chosen if run in found})


def _series(log: Log, ask: Mapping[str, str]) -> bytes:
    question = _question(ask)
    return curves.curves(log, _texts(question, "runs"), _texts(question, "tags"))


def _frames(log: Log, ask: Mapping[str, str]) -> bytes:
    question = _question(ask)
    run, tag, after = question.get("run"), question.get("tag"), question.get("after")
    if not isinstance(run, str) or not isinstance(tag, str):
        raise Refused('q needs "run" and "tag"')
    after = float(after) if isinstance(after, int | float) else -math.inf
    return frames.frames(log, run, tag, after)


def _question(ask: Mapping[str, str]) -> dict[str, Any]:
    text = ask.get("q", "{}")
    try:
        question = json.loads(text) if len(text) <= _LONGEST else None
    except (ValueError, RecursionError):
        question = None
    if not isinstance(question, dict):
        raise Refused("q is a JSON object of at most 200,000 characters")
    return question


def _texts(question: Mapping[str, Any], name: str) -> list[str]:
    texts = question.get(name, [])
    if not isinstance(texts, list) or not all(isinstance(t, str) for t in texts):
        raise Refused(f'"{name}" is a list of names')
    return texts


def _respond(request: Any, content: str | bytes, code: int = 200) -> Any:
    if isinstance(content, str):
        return http_util.Respond(request, content, "application/json", code=code)
    # TensorBoard compresses text only; level 1 takes a tenth of the time of level 9 and gains nearly as much here.
    packed = gzip.compress(content, 1, mtime=0)
    return http_util.Respond(request, packed, "application/octet-stream", code=code, content_encoding="gzip")
