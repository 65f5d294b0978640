"""From a process that has just started to the user's function, and back."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from headrace.exchange import Channel, Feed
from headrace.framework.process import ProcessSpec
from headrace.framework.stopping import StopRequestedExit
from headrace.role.context import RoleContext
from headrace.role.link import RoleLink

__all__ = ["RoleEntry"]

_LOG = logging.getLogger(__name__)


class RoleEntry:
    """Runs an entry function with its context; travels to the process by cloudpickle.

    Framework layers subclass it, set `context_class`, and override `preload`, `prepare` and
    `run`.

    Attributes:
        entry: Function of one argument, the context. What it returns is ignored.
    """

    context_class: ClassVar[type[RoleContext]] = RoleContext

    def __init__(self, entry: Callable[[Any], object]) -> None:
        self.entry = entry

    def preload(self) -> None:
        """Import what `prepare` and most entry functions need.

        Called in a process that is started ahead of its spec, before anybody knows its index,
        attempt or GPU: it must touch no GPU, and draw no random numbers.
        """

    def open_context(
        self,
        spec: ProcessSpec,
        link: RoleLink,
        *,
        feed: Feed | None = None,
        on_report: Callable[[Mapping[str, Any]], object] | None = None,
    ) -> RoleContext:
        """Connect the memory queue, if any; return a prepared context, which the caller closes.

        Blocks for at most `timeouts.process_start_timeout_s`, and for as long as `prepare`.

        Args:
            spec: The facts about this process.
            link: The line to the node.
            feed: Taken in place of a memory queue, for tests; closed with the context.
            on_report: As in `RoleContext`, for tests.

        Raises:
            ExchangeError: The queue cannot be reached.
            WaitTimeoutError: The operator did not answer in time.
        """
        if feed is None and spec.queue_socket is not None:
            feed = Channel.connect(
                spec.queue_socket,
                attempt=spec.attempt,
                connect_timeout_s=spec.timeouts.process_start_timeout_s,
            )
        try:
            context = self.context_class(spec=spec, link=link, feed=feed, on_report=on_report)
        except BaseException:
            if feed is not None:
                feed.close()
            raise
        try:
            self.prepare(context, spec, link)
        except BaseException:
            context.close(is_success=False)
            raise
        return context

    def prepare(self, context: RoleContext, spec: ProcessSpec, link: RoleLink) -> None:
        """Give a new context what its framework needs before the entry function starts.

        Part of `open_context`, which closes the context if this raises. May block: say for how
        long.
        """

    def run(self, context: RoleContext) -> None:
        """Call the entry function; subclasses may do something around it."""
        self.entry(context)

    def __call__(
        self,
        spec: ProcessSpec,
        link: RoleLink,
        *,
        feed: Feed | None = None,
        on_report: Callable[[Mapping[str, Any]], object] | None = None,
    ) -> None:
        """Run the entry function to its end. Blocks for as long as it runs.

        When it returns, or raises `SystemExit(0)`, its last report and the end of its output
        are sent; input that it has not read is left. The same when the node stops the process,
        but peers are not waited for. When it raises, the queue is closed without an end, so
        that the operator knows, and the exception goes on to the caller. The arguments are
        those of `open_context`.
        """
        context = self.open_context(spec, link, feed=feed, on_report=on_report)
        try:
            context.tell_begun()
            self.run(context)
        except StopRequestedExit:
            context.stop()
            raise
        except BaseException as exc:
            if isinstance(exc, SystemExit) and exc.code in (None, 0):
                context.close(is_success=True)
                raise
            try:
                context.close(is_success=False)
            except Exception:  # noqa: BLE001 (the entry function's error is the one to tell)
                _LOG.warning("closing after a failure failed too", exc_info=True)
            raise
        context.close(is_success=True)
