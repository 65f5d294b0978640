"""A standalone cluster with Flink's internal TLS: a job trains, and strangers stay outside."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
import torch

from headrace.framework.rpc.tls import Identity
from tests.tls import PASSWORD, RSA_KEY, keystore_server, settings_for
from tests.waiting import until

from .hostile import status_of_call
from .programs.train import replay
from .recording_node import recording_interpreter
from .standalone import LOCALHOST, Standalone, standalone_cluster
from .system import Process, descendants
from .test_standalone import read_rows

TRAIN = Path(__file__).with_name("programs") / "train.py"
_ROWS = 6400
_PEM_FILES = {"tls-chain.pem", "tls-trusted.pem"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Secured:
    """The cluster, what its certificate is, and what one with another certificate has."""

    cluster: Standalone
    lines: Path
    identity: Identity
    stranger: Identity

    def said_to_nodes(self, kind: str) -> list[dict[str, Any]]:
        """The lines of a type that nodes got from their JVMs so far."""
        lines = [
            json.loads(line)
            for path in self.lines.glob("lines-*")
            for line in path.read_text().splitlines(keepends=True)
            if line.endswith("\n")
        ]
        return [line for line in lines if line["type"] == kind]


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    folder = tmp_path_factory.mktemp("tls")
    with keystore_server(folder) as keystores:
        named = ("-ext", "san=dns:localhost")  # Flink 2.3's own data connections verify it
        settings = settings_for(keystores.make("internal.p12", key=RSA_KEY, more=named))
        identity, _ = keystores.export(settings)
        stranger, _ = keystores.export(settings_for(keystores.make("another.p12")))
    lines, flink = folder / "lines", folder / "flink"
    lines.mkdir()
    flink.mkdir()
    options = {**settings, "python.executable": str(recording_interpreter(lines))}
    one = (LOCALHOST,)  # the RPC is the same with more, and JVMs with TLS start slowly
    with standalone_cluster(flink, workers=one, slots=4, options=options) as cluster:
        yield Secured(cluster=cluster, lines=lines, identity=identity, stranger=stranger)


def status_with(
    identity: Identity | None, master: dict[str, Any], method: str, token: str
) -> str:
    """Call the master with a certificate, or in plain text; return how the call ends."""
    if identity is None:
        return status_of_call(master["address"], method, token)
    options = [("grpc.ssl_target_name_override", master["tls_name"])]
    credentials = grpc.ssl_channel_credentials(
        identity.trusted, identity.key or None, identity.chain or None
    )
    channel = grpc.secure_channel(master["address"], credentials, options=options)
    return status_of_call(master["address"], method, token, channel=channel)


def ours(cluster: Standalone) -> list[Process]:
    return [
        each
        for manager in cluster.task_managers
        for each in descendants(manager.pid)
        if "headrace" in each.command or "recording_node" in each.command
    ]


@pytest.mark.timeout(300)
def test_a_job_trains_over_tls_and_who_has_no_certificate_is_refused(
    secured: Secured, tmp_path: Path
) -> None:
    cluster = secured.cluster
    results, model = tmp_path / "results", tmp_path / "model"
    program = (TRAIN, results.as_uri(), model, "--rows", str(_ROWS), "--pause", "0.2")
    with cluster.started(*program) as training:
        job = cluster.wait_for_job("train", "RUNNING", 120)
        until(lambda: len(secured.said_to_nodes("master")) == 2, "nodes know the master")
        until(lambda: "train attempt 1 is training" in cluster.logs(), "steps", 60)
        master, _ = secured.said_to_nodes("master")
        token = master["token"]
        assert master["tls_name"] == "localhost"

        only_trusts = Identity(key=b"", chain=b"", trusted=secured.identity.trusted)
        has_own_key = Identity(
            key=secured.stranger.key,
            chain=secured.stranger.chain,
            trusted=secured.identity.trusted,
        )
        for refused in (None, only_trusts, has_own_key):  # with the right token
            assert status_with(refused, master, "StopJob", token) == "UNAVAILABLE"
        right = secured.identity
        assert status_with(right, master, "StopJob", "0" * 48) == "UNAUTHENTICATED"
        assert status_with(right, master, "StopJob", token) == "INVALID_ARGUMENT", "it is read"

        for start in secured.said_to_nodes("start"):
            directory = Path(start["work_dir"])
            assert {path.name for path in directory.iterdir()} >= _PEM_FILES
        require_no_secret_shown(secured, job, token)
        summary = cluster.finish(training)
    assert (summary["rows_in"], summary["attempt"]) == (_ROWS, 1)
    steps = read_rows(results)
    assert [row["id"] for row in steps] == list(range(_ROWS))
    saved = torch.load(model / "model.pt", weights_only=True)
    for name, value in replay(steps).state_dict().items():
        torch.testing.assert_close(saved[name], value, rtol=1e-4, atol=1e-5)
    assert list(cluster.tmp_dir.rglob("*.pem")) == []


def require_no_secret_shown(secured: Secured, job: str, token: str) -> None:
    """Neither key nor password nor token where others than the owner could see them."""
    cluster = secured.cluster
    key = secured.identity.key.decode().splitlines()[1]
    assert list(cluster.tmp_dir.rglob("*key*.pem")) == [], "the children have taken the keys"
    processes = ours(cluster)
    assert len(processes) >= 5, "a master, two nodes, two algorithm processes"
    shown = {
        "logs": cluster.logs(),
        "REST": json.dumps([cluster.ask(f"jobs/{job}{more}") for more in ("", "/config")]),
        "command lines": " ".join(each.command for each in processes),
        "environments": " ".join(
            Path(f"/proc/{each.pid}/environ").read_text(errors="replace") for each in processes
        ),
        **{str(path): path.read_text() for path in cluster.tmp_dir.rglob("*.json*")},
    }
    assert any(name.endswith("spec.json") for name in shown)
    found = [
        (where, what)
        for where, text in shown.items()
        for what, secret in (("key", key), ("password", PASSWORD), ("token", token))
        if secret in text
    ]
    assert found == []
