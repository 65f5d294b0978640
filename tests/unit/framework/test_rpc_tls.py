"""The RPC with Flink's internal certificate: who is let in; what wrong settings lead to."""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from headrace.errors import ConfigError
from headrace.framework.jvm_lines import TlsFiles
from headrace.framework.machine import JobState
from headrace.framework.rpc.client import MasterClient
from headrace.framework.rpc.library import grpc
from headrace.framework.rpc.protocol import (
    SERVICE,
    TOKEN_KEY,
    MasterUnreachableError,
    RefusedError,
)
from headrace.framework.rpc.tls import Identity, take_identity
from tests.tls import KeystoreServer, keystore_server, settings_for

from .test_rpc import TOKEN, Served, register

pytestmark = pytest.mark.timeout(60)  # the first one starts a JVM
_CALL_S = 5.0


@pytest.fixture(scope="module")
def keystores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KeystoreServer]:
    with keystore_server(tmp_path_factory.mktemp("keystores")) as server:
        yield server


@pytest.fixture(scope="module")
def shared(keystores: KeystoreServer) -> Path:
    """The store of the documentation's example: key and trust in one, on every host."""
    return keystores.make("internal.p12")


@asynccontextmanager
async def served(identity: Identity) -> AsyncIterator[Served]:
    it = Served(identity=identity)
    it.address = await it.server.start("127.0.0.1")
    try:
        yield it
    finally:
        await it.close()


def run(identity: Identity, scenario: Callable[[Served], Awaitable[None]]) -> None:
    async def whole() -> None:
        async with served(identity) as it:
            await scenario(it)
            assert it.master.job.state in (JobState.GATHERING, JobState.RUNNING)

    asyncio.run(whole())


def require_mutual(server: Identity, client: Identity, name: str) -> None:
    """Let a node with one certificate register with a master that shows another one."""

    async def scenario(it: Served) -> None:
        node = it.client(identity=client, tls_name=name)
        reply = await node.register(register(), timeout_s=_CALL_S)
        assert reply.attempt == 1
        assert it.master.job.state is JobState.RUNNING

    run(server, scenario)


def test_the_store_that_flinks_documentation_makes_is_enough(
    keystores: KeystoreServer, shared: Path
) -> None:
    identity, name = keystores.export(settings_for(shared))
    assert name == "flink.internal"
    require_mutual(identity, identity, name)


def test_hosts_with_certificates_of_one_authority_accept_each_other(
    keystores: KeystoreServer,
) -> None:
    authority = keystores.make("ca.p12", subject="CN=authority", more=("-ext", "bc:c"))
    trust = keystores.make_truststore("ca-trust.p12", authority)
    stores = [keystores.make_signed(f"host-{n}.p12", authority) for n in (1, 2)]
    (first, name), (second, _) = (keystores.export(settings_for(s, trust)) for s in stores)
    assert first.chain.count(b"BEGIN CERTIFICATE") == 2
    require_mutual(first, second, name)


def test_stores_of_the_older_format_with_a_password_for_the_key(
    keystores: KeystoreServer,
) -> None:
    jks = ("-storetype", "JKS", "-keypass", "another")
    store = keystores.make("old.jks", more=jks)
    settings = {
        **settings_for(store),
        "security.ssl.internal.key-password": "another",
        "security.ssl.internal.keystore-type": "JKS",
        "security.ssl.internal.truststore-type": "JKS",
    }
    identity, name = keystores.export(settings)
    require_mutual(identity, identity, name)


def test_the_general_settings_count_where_there_are_no_internal_ones(
    keystores: KeystoreServer, shared: Path
) -> None:
    settings = {
        key.replace("ssl.internal", "ssl") if "enabled" not in key else key: value
        for key, value in settings_for(shared).items()
    }
    assert "security.ssl.keystore" in settings
    identity, name = keystores.export(settings)
    require_mutual(identity, identity, name)


@pytest.mark.parametrize(
    ("extension", "name"),
    [
        ("san=dns:a.example,ip:192.0.2.1", "a.example"),
        ("san=ip:192.0.2.1", "192.0.2.1"),
        ("san=dns:*.example", "*.example"),
    ],
)
def test_a_certificate_with_alternative_names_is_known_by_one_of_them(
    keystores: KeystoreServer, extension: str, name: str
) -> None:
    store = keystores.make(f"{name.strip('*.')}-{len(extension)}.p12", more=("-ext", extension))
    identity, found = keystores.export(settings_for(store))
    assert found == name
    require_mutual(identity, identity, found)


def test_a_client_without_the_certificate_is_refused_with_the_right_token(
    keystores: KeystoreServer, shared: Path
) -> None:
    identity, name = keystores.export(settings_for(shared))
    stranger, _ = keystores.export(settings_for(keystores.make("stranger.p12"), shared))

    async def scenario(it: Served) -> None:
        with pytest.raises(MasterUnreachableError, match="UNAVAILABLE"):  # a key of its own
            await it.client(identity=stranger, tls_name=name).register(
                register(), timeout_s=_CALL_S
            )
        await refused(it, None)
        only_trusts = grpc.ssl_channel_credentials(root_certificates=identity.trusted)
        await refused(it, only_trusts, name)
        assert it.master.job.state is JobState.GATHERING

    async def refused(it: Served, credentials: Any, tls_name: str = "") -> None:
        """Call with the right token, in plain text without credentials."""
        override = (("grpc.ssl_target_name_override", tls_name),)
        channel = (
            grpc.aio.insecure_channel(it.address)
            if credentials is None
            else grpc.aio.secure_channel(it.address, credentials, options=override)
        )
        async with channel:
            call = channel.unary_unary(f"/{SERVICE}/Register")
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call(b"{}", metadata=((TOKEN_KEY, TOKEN),), timeout=_CALL_S)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE

    run(identity, scenario)


def test_the_certificate_is_no_token(keystores: KeystoreServer, shared: Path) -> None:
    identity, name = keystores.export(settings_for(shared))

    async def scenario(it: Served) -> None:
        node = it.client("wrong", identity=identity, tls_name=name)
        with pytest.raises(RefusedError, match="UNAUTHENTICATED"):
            await node.register(register(), timeout_s=_CALL_S)

    run(identity, scenario)


def test_a_node_gives_its_token_to_no_master_that_it_does_not_trust(
    keystores: KeystoreServer, shared: Path
) -> None:
    identity, name = keystores.export(settings_for(shared))
    false, _ = keystores.export(settings_for(keystores.make("false.p12"), shared))
    asyncio.run(_is_refused_by_the_node(false, identity, name))
    asyncio.run(_is_refused_by_the_node(None, identity, name))
    asyncio.run(_is_refused_by_the_node(identity, identity, "another.name"))


async def _is_refused_by_the_node(
    master: Identity | None, node: Identity, tls_name: str
) -> None:
    it = Served(identity=master)
    it.address = await it.server.start("127.0.0.1")
    try:
        client = it.client(identity=node, tls_name=tls_name)
        with pytest.raises(MasterUnreachableError):
            await client.register(register(), timeout_s=2.0)
    finally:
        await it.close()


@pytest.mark.parametrize("has_identity", [True, False])
def test_taskmanagers_with_different_settings_are_told_so(
    keystores: KeystoreServer, shared: Path, has_identity: bool
) -> None:
    identity, name = keystores.export(settings_for(shared))
    with pytest.raises(ConfigError, match=r"`security\.ssl\.internal\.enabled` is"):
        MasterClient(
            "127.0.0.1:1",
            TOKEN,
            identity=identity if has_identity else None,
            tls_name=None if has_identity else name,
        )


def test_pinned_fingerprints_narrow_what_is_trusted(
    keystores: KeystoreServer, shared: Path
) -> None:
    identity, name = keystores.export(settings_for(shared))
    der = ssl.PEM_cert_to_DER_cert(identity.chain.decode())
    digest = hashlib.sha1(der, usedforsecurity=False).hexdigest().upper()
    pin = ":".join(digest[i : i + 2] for i in range(0, len(digest), 2))
    authority = keystores.make("wide.p12", subject="CN=wide", more=("-ext", "bc:c"))
    settings = {
        **settings_for(shared, keystores.make_truststore("wide-trust.p12", authority)),
        "security.ssl.internal.cert.fingerprint": pin,
    }
    pinned, _ = keystores.export(settings)
    assert pinned.trusted == identity.chain
    require_mutual(pinned, pinned, name)
    settings["security.ssl.internal.cert.fingerprint"] = "00" * 20
    refusal = keystores.refusal(settings)
    assert "`security.ssl.internal.cert.fingerprint`" in refusal


@pytest.mark.parametrize(
    ("setting", "value", "told"),
    [
        ("keystore", "/nowhere/a.p12", "names /nowhere/a.p12, and there is no such file"),
        ("keystore", __file__, "cannot be read as a store of the type"),
        ("keystore-password", "wrong", "does not open"),
        ("keystore-type", "PEM", "is 'PEM', which this JVM does not know"),
        ("truststore", "/nowhere/b.p12", "names /nowhere/b.p12, and there is no such file"),
        ("truststore-password", "wrong", "does not open"),
        ("truststore-type", "PEM", "is 'PEM', which this JVM does not know"),
    ],
)
def test_settings_that_cannot_work_are_named(
    keystores: KeystoreServer, shared: Path, setting: str, value: str, told: str
) -> None:
    name = f"security.ssl.internal.{setting}"
    refusal = keystores.refusal({**settings_for(shared), name: value})
    assert f"`{name}`" in refusal
    assert told in refusal
    assert "`security.ssl.internal.enabled` is true" in refusal
    assert "wrong" not in refusal.replace(str(shared), ""), "it may be a password"


def test_what_is_missing_in_settings_and_stores_is_named(
    keystores: KeystoreServer, shared: Path
) -> None:
    settings = settings_for(shared)
    del settings["security.ssl.internal.keystore"]
    assert (
        "Neither `security.ssl.internal.keystore` nor `security.ssl.keystore` is set"
        in keystores.refusal(settings)
    )
    key = keystores.make("key.jks", more=("-storetype", "JKS", "-keypass", "another"))
    types = {
        f"security.ssl.internal.{store}-type": "JKS" for store in ("keystore", "truststore")
    }
    assert "`security.ssl.internal.key-password` does not open the key 'flink'" in (
        keystores.refusal({**settings_for(key), **types})
    )
    no_key = keystores.make_truststore("no-key.p12", shared)
    assert "`security.ssl.internal.keystore` names a store without a private key" in (
        keystores.refusal(settings_for(no_key))
    )
    no_name = keystores.make("no-name.p12", subject="O=nobody")
    assert "has no name" in keystores.refusal(settings_for(no_name))


def test_the_files_are_read_and_the_key_is_removed(tmp_path: Path) -> None:
    paths = {name: tmp_path / name for name in ("key", "chain", "trusted")}
    for name, path in paths.items():
        path.write_text(name)
    files = TlsFiles(**{name: str(path) for name, path in paths.items()})
    identity = take_identity(files)
    assert identity == Identity(key=b"key", chain=b"chain", trusted=b"trusted")
    assert "key=" not in repr(identity)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["chain", "trusted"]
    assert take_identity(None) is None
