"""Certificates for tests: keystores as Flink has them, read by Headrace's own Java."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

from headrace.framework.rpc.tls import Identity

__all__ = [
    "EC_KEY",
    "PASSWORD",
    "RSA_KEY",
    "KeystoreServer",
    "keystore_server",
    "settings_for",
]

PASSWORD = "of-a-test"
EC_KEY = ("-keyalg", "EC", "-groupname", "secp256r1")  # made at once
RSA_KEY = ("-keyalg", "RSA", "-keysize", "2048")  # what Flink's default ciphers need
_ROOT = Path(__file__).resolve().parents[1]
_PROGRAM = _ROOT / "java/src/test/java/org/headrace/process/TlsServer.java"
_JAR = _ROOT / "src/headrace/_jars/headrace.jar"
_PATIENCE_S = 30.0


def settings_for(keystore: Path, truststore: Path | None = None) -> dict[str, str]:
    """Return Flink's settings for internal connections with these stores."""
    internal = "security.ssl.internal"
    return {
        f"{internal}.enabled": "true",
        f"{internal}.keystore": str(keystore),
        f"{internal}.keystore-password": PASSWORD,
        f"{internal}.key-password": PASSWORD,
        f"{internal}.truststore": str(truststore or keystore),
        f"{internal}.truststore-password": PASSWORD,
    }


class KeystoreServer:
    """Makes keystores below a folder, and exports them as the operators do."""

    def __init__(self, folder: Path, jvm: subprocess.Popen[str]) -> None:
        self.folder = folder
        self._jvm = jvm
        self._exports = 0

    def make(
        self,
        name: str,
        *,
        subject: str = "CN=flink.internal",
        key: tuple[str, ...] = EC_KEY,
        more: tuple[str, ...] = (),
    ) -> Path:
        """Make a store with a key and a certificate that it signs itself."""
        store = self.folder / name
        whose = ("-alias", "flink", "-dname", subject, "-validity", "3650")
        self.keytool("-genkeypair", store, *whose, *key, *more)
        return store

    def make_signed(self, name: str, issuer: Path) -> Path:
        """Make a key with a certificate that the key of `issuer` has signed."""
        store = self.make(name)
        request, signed, root = (self.folder / f"{name}.{end}" for end in ("csr", "crt", "ca"))
        self.keytool("-certreq", store, "-alias", "flink", "-file", str(request))
        self.keytool(
            *("-gencert", issuer, "-alias", "flink"),
            *("-infile", str(request), "-outfile", str(signed), "-validity", "3650"),
        )
        self.keytool("-exportcert", issuer, "-alias", "flink", "-file", str(root))
        self.keytool("-importcert", store, "-alias", "ca", "-noprompt", "-file", str(root))
        self.keytool("-importcert", store, "-alias", "flink", "-file", str(signed))
        return store

    def make_truststore(self, name: str, of: Path) -> Path:
        """Make a store that trusts the certificate of another one, and has no key."""
        store, exported = self.folder / name, self.folder / f"{name}.crt"
        self.keytool("-exportcert", of, "-alias", "flink", "-file", str(exported))
        self.keytool("-importcert", store, "-alias", "it", "-noprompt", "-file", str(exported))
        return store

    def keytool(self, command: str, store: Path, *arguments: str) -> None:
        """Run a command of the JDK's keytool on a store."""
        where = ("-keystore", str(store), "-storepass", PASSWORD)
        answer = self._ask("keytool", command, *where, *arguments)
        assert answer == "ok ", answer

    def export(self, settings: dict[str, str]) -> tuple[Identity, str]:
        """Return what Headrace reads from Flink's settings, and the name in the certificate."""
        self._exports += 1
        to = self.folder / f"exported-{self._exports}"
        to.mkdir()
        outcome, _, text = self._export(to, settings).partition(" ")
        assert outcome == "ok", text
        key, chain, trusted = (
            (to / f"{name}.pem").read_bytes() for name in ("key", "chain", "trusted")
        )
        return Identity(key=key, chain=chain, trusted=trusted), text

    def refusal(self, settings: dict[str, str]) -> str:
        """Return the text of the error that Flink's settings lead to."""
        outcome, _, text = self._export(self.folder, settings).partition(" ")
        assert outcome == "error", text
        return text

    def _export(self, to: Path, settings: dict[str, str]) -> str:
        return self._ask("export", str(to), *(f"{key}={settings[key]}" for key in settings))

    def _ask(self, *fields: str) -> str:
        assert self._jvm.stdin is not None
        assert self._jvm.stdout is not None
        self._jvm.stdin.write("\t".join(fields) + "\n")
        self._jvm.stdin.flush()
        return self._jvm.stdout.readline().rstrip("\n")


@contextmanager
def keystore_server(folder: Path) -> Iterator[KeystoreServer]:
    """Start the JVM that makes them; it ends with the block. Blocks for some seconds."""
    flink = Path(str(metadata.distribution("apache-flink-libraries").locate_file("pyflink")))
    jars = [_JAR, *sorted((flink / "lib").glob("*.jar"))]
    classes = folder / "classes"
    compile_it = [*("--release", "17", "-proc:none", "-cp", ":".join(map(str, jars)), "-d")]
    subprocess.run(
        [_tool("javac"), *compile_it, str(classes), str(_PROGRAM)],
        check=True,
        timeout=_PATIENCE_S,
    )
    command = [
        *(_tool("java"), "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"),
        *("--add-exports", "java.base/sun.security.tools.keytool=ALL-UNNAMED"),
        *("-cp", ":".join(map(str, [classes, *jars])), "org.headrace.process.TlsServer"),
    ]
    with (folder / "keystores.log").open("wb") as log:
        jvm = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
        )
    with jvm:  # it ends with its stdin
        yield KeystoreServer(folder, jvm)
        assert jvm.stdin is not None
        jvm.stdin.close()
        jvm.wait(_PATIENCE_S)


def _tool(name: str) -> str:
    path = shutil.which(name)
    assert path is not None, f"{name} of a JDK 17 is not on the PATH"
    return path
