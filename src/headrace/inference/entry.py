"""From a process that has just started to one that scores rows until there are no more."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from typing import ClassVar

import pyarrow as pa

from headrace.errors import UsageError, WaitTimeoutError
from headrace.framework.process import ProcessSpec
from headrace.inference.context import ScoringContext
from headrace.inference.model import LoadedModel, Model, is_uri
from headrace.inference.scorer import Scorer
from headrace.inference.settings import ScoringSettings
from headrace.inference.successor import SuccessorLoader
from headrace.inference.version import ModelVersion, version_at
from headrace.role import RoleContext, RoleEntry, RoleLink, choose_threads

__all__ = ["ScoringEntry"]

_LOG = logging.getLogger(__name__)
_FIRST_LOADS = 3


class ScoringEntry(RoleEntry):
    """Loads a model and scores all rows with it; travels to the process by cloudpickle.

    Thread model: the main thread of the process waits for rows and emits, a `ModelThread` calls
    the model meanwhile; with `reload`, a `SuccessorLoader` makes ready what it then scores with
    (docs/adr/0103, 0104, 0111).

    Args:
        model: The model.
        settings: How to score.
    """

    context_class: ClassVar[type[RoleContext]] = ScoringContext

    def __init__(self, model: Model, settings: ScoringSettings) -> None:
        super().__init__(self._score_all)
        self.model = model
        self.settings = settings
        self._path: Path | None = None
        self._scorer: Scorer | None = None
        self._rejected = 0
        self._without_scores = 0

    def prepare(self, context: RoleContext, spec: ProcessSpec, link: RoleLink) -> None:  # noqa: ARG002
        """Load the model and compare it with the columns. Blocks for as long as that takes.

        With `reload` it may be that somebody is about to write the first version: it is waited
        for, as long as a training that starts with this process may take until it writes one:
        `timeouts.gather_timeout_s` and `timeouts.process_start_timeout_s` together.

        Raises:
            WaitTimeoutError: Nothing was there by then.
        """
        threads = self.settings.threads
        if threads is None:  # as if all workers were on this host: nobody knows their hosts
            threads = choose_threads([spec.host] * spec.parallelism, spec.index)
        self._path = _path_here(self.model, spec)
        self._await_first(context, spec)
        for left in reversed(range(_FIRST_LOADS)):  # until what was loaded is one version
            version = None if self._path is None else version_at(self._path)
            try:
                self._scorer = self._load(context, version, threads)
            except Exception:
                if left and version is not None and not version.stands:
                    continue  # it was removed, or replaced, while it was read
                raise
            if self._path is None or (version is not None and version.is_served(self._path)):
                return
        _LOG.warning("%s changes all the time; its version may be another one", self._path)

    def run(self, context: RoleContext) -> None:
        """Score all rows; with `reload`, by each new version from the next batch on."""
        assert isinstance(context, ScoringContext)
        self._report_version(context)
        if self.settings.reload is None:
            self._score_all(context)
            return
        assert self._path is not None
        with SuccessorLoader(
            self._path,
            lambda version: self._load(context, version, None),
            present=self._present.version,
            every_s=self.settings.reload_every_s,
        ) as successors:
            context.between_batches = lambda: self._take_over(context, successors)
            self._score_all(context)

    @property
    def _present(self) -> Scorer:
        assert self._scorer is not None
        return self._scorer

    def _await_first(self, context: RoleContext, spec: ProcessSpec) -> None:
        path = self._path
        if self.settings.reload is None or path is None or path.exists():
            return
        assert isinstance(context, ScoringContext)
        _LOG.info("There is no model at %s yet: waiting for one", path)
        timeouts = spec.timeouts
        limit_s = timeouts.gather_timeout_s + timeouts.process_start_timeout_s
        if not context.wait_for(path.exists, limit_s):
            raise WaitTimeoutError(
                waited_for=f"the first version of the model at {path} on this host",
                waited_s=limit_s,
                setting="timeouts.gather_timeout_s + timeouts.process_start_timeout_s",
                hint="Does a training with export_to= write there, on this host or a mounted "
                "directory? One that has much to do before its first row needs a longer limit: "
                "give predict its own timeouts",
            )

    def _load(
        self, context: RoleContext, version: ModelVersion | None, threads: int | None
    ) -> Scorer:
        schemas = context.input_schema, context.output_schema
        if schemas[0] is None or schemas[1] is None:
            msg = "Scoring needs rows that come in and columns that go out"
            raise UsageError(msg)
        place = None if version is None else version.place
        if place is None and self._path is not None and is_uri(self.model.path or ""):
            place = self._path
        loaded = self.model.load(threads, place)
        settings = self.settings_for(loaded, schemas[0])
        return Scorer(loaded, settings, *schemas, version, partial(self._note, context))

    def _take_over(self, context: RoleContext, successors: SuccessorLoader[Scorer]) -> None:
        successor = successors.take()
        if successor is not None:
            self._scorer = successor
            self._report_version(context)
            _LOG.info("%s: a new version scores from here on", self.model.path)
        if successors.rejected != self._rejected:
            self._rejected = successors.rejected
            context.report(model_versions_rejected=self._rejected)

    def _report_version(self, context: RoleContext) -> None:
        if self._present.version is not None:
            context.report(model_version_ms=self._present.version.changed_ms)

    def settings_for(self, model: LoadedModel, schema: pa.Schema) -> ScoringSettings:  # noqa: ARG002
        """Return the settings for a loaded model and its columns; may be overridden."""
        return self.settings

    def _score_all(self, context: RoleContext) -> None:
        assert isinstance(context, ScoringContext)
        context.score_all(self.settings.batch_rows, lambda: self._present)

    def _note(self, context: RoleContext, reasons: list[str]) -> None:
        if not self._without_scores:
            _LOG.warning("A row cannot be scored, the first of this worker: %s", reasons[0])
        self._without_scores += len(reasons)
        context.report(rows_without_scores=self._without_scores)


def _path_here(model: Model, spec: ProcessSpec) -> Path | None:
    """Return where the model is on this host: at its path, or where Flink has copied it to."""
    if model.path is None or not is_uri(model.path):
        return None if model.path is None else Path(model.path)
    if spec.mirror is None:
        msg = f"{model.path} was not copied to this host; only jobs that Flink runs do that"
        raise UsageError(msg)
    return Path(spec.mirror)
