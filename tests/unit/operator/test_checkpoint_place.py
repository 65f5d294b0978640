"""Who submits a job whose checkpoints have no directory hears of it in time."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, cast

import pytest

from headrace.operator.checkpoint_place import has_directory
from headrace.operator.environment import FlinkEnvironment
from headrace.operator.flink_options import names_of
from tests.ports import free_ports

CHECKPOINTS = {"execution.checkpointing.interval": "10 s"}


@dataclass
class Options:
    """What of a `FlinkEnvironment` is asked for."""

    options: Mapping[str, str]
    is_embedded: bool = False

    @property
    def has_checkpoints(self) -> bool:
        return "execution.checkpointing.interval" in self.options

    def option(self, key: str) -> str | None:
        return next(
            (self.options[name] for name in names_of(key) if name in self.options), None
        )


def look(options: Options) -> bool:
    return has_directory(cast("FlinkEnvironment", options), "trained")


@contextmanager
def cluster_with(reply: Any) -> Iterator[dict[str, str]]:
    """A REST API that has one answer; yields the options by which a program finds it."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            assert self.path == "/jobmanager/config"
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(reply).encode())

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("localhost", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield {"rest.address": "localhost", "rest.port": str(server.server_port)}
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("options", "own", "is_warned", "has"),
    [
        (CHECKPOINTS, ["rest.port"], True, False),
        ({}, ["rest.port"], False, False),
        ({**CHECKPOINTS, "execution.checkpointing.dir": "file:///cp"}, [], False, True),
        ({**CHECKPOINTS, "execution.checkpointing.storage": "jobmanager"}, [], False, False),
        ({**CHECKPOINTS, "state.checkpoints.dir": "file:///cp"}, [], False, True),
        (CHECKPOINTS, ["execution.checkpointing.dir"], False, True),
        (CHECKPOINTS, ["execution.checkpointing.storage"], False, False),
        (CHECKPOINTS, ["state.checkpoints.dir"], False, True),
    ],
)
def test_without_a_directory_anywhere_there_is_a_warning_with_the_setting(
    options: dict[str, str],
    own: list[str],
    is_warned: bool,
    has: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    entries = [{"key": key, "value": "x"} for key in own]
    with caplog.at_level(logging.WARNING), cluster_with(entries) as place:
        assert look(Options({**options, **place})) == has
    told = "Checkpoints of trained are on, and no directory is set for them. Flink"
    assert (told in caplog.text) == is_warned
    assert ("`execution.checkpointing.dir`" in caplog.text) == is_warned


@pytest.mark.parametrize("reply", [{"errors": ["no"]}, [7]])
def test_a_cluster_that_cannot_be_asked_may_have_one(
    reply: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        with cluster_with(reply) as place:
            assert not look(Options({**CHECKPOINTS, **place}))
        (port,) = free_ports(1)
        nobody = {"rest.address": "localhost", "rest.port": str(port)}
        assert not look(Options({**CHECKPOINTS, **nobody}))
    assert caplog.text.count("what the cluster itself has set is not known: ") == 2


def test_the_embedded_cluster_has_a_directory_of_its_own(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert not look(Options(CHECKPOINTS, is_embedded=True))
    assert caplog.text == ""


def test_the_embedded_cluster_has_none_where_checkpoints_are_to_stay_without_a_place(
    caplog: pytest.LogCaptureFixture,
) -> None:
    retained = {
        "execution.checkpointing.externalized-checkpoint-retention": "RETAIN_ON_CANCELLATION"
    }
    assert not look(Options({**CHECKPOINTS, **retained}, is_embedded=True))
    assert "no directory is set for them" in caplog.text
