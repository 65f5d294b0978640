"""A source that a test feeds: numbers through a socket, when the test says so."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterable
from types import TracebackType

from pyflink.datastream import DataStream, StreamExecutionEnvironment
from pyflink.table import Schema, StreamTableEnvironment

_LIMIT_S = 90.0


class PacedSource:
    """Listens; Flink's socket source connects and reads lines until the script is over.

    Use it as a context manager around the job. The script runs on a thread of its own.

    Args:
        script: Called with a function that sends numbers.
    """

    def __init__(self, script: Callable[[Callable[[Iterable[int]], None]], None]) -> None:
        self._script = script
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(_LIMIT_S)
        self._thread = threading.Thread(target=self._serve, name="paced-source")

    def add_table(self, t_env: StreamTableEnvironment, name: str) -> None:
        """Register the numbers as a table with the column `id`."""
        env = StreamExecutionEnvironment(t_env._j_tenv.execEnv())
        port = self._listener.getsockname()[1]
        j_lines = env._j_stream_execution_environment.socketTextStream("127.0.0.1", port)
        lines = t_env.from_data_stream(
            DataStream(j_lines), Schema.new_builder().column("f0", "STRING").build()
        )
        t_env.create_temporary_view(f"{name}_lines", lines)
        t_env.execute_sql(
            f"CREATE TEMPORARY VIEW {name} AS SELECT CAST(f0 AS BIGINT) AS id FROM {name}_lines"
        )

    def __enter__(self) -> PacedSource:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._listener.close()
        self._thread.join(_LIMIT_S)

    def _serve(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:  # the job has failed, or came too late
            return
        with connection:

            def send(numbers: Iterable[int]) -> None:
                connection.sendall("".join(f"{number}\n" for number in numbers).encode())

            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the job failed
                self._script(send)
