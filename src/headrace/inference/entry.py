"""From a process that has just started to one that scores rows until there are no more."""

from __future__ import annotations

import pyarrow as pa

from headrace.errors import UsageError
from headrace.framework.process import ProcessSpec
from headrace.inference.model import LoadedModel, Model
from headrace.inference.scorer import Scorer
from headrace.inference.settings import ScoringSettings
from headrace.role import RoleContext, RoleEntry, RoleLink, choose_threads

__all__ = ["ScoringEntry"]


class ScoringEntry(RoleEntry):
    """Loads a model and scores all rows with it; travels to the process by cloudpickle.

    Thread model: one, the main thread of the process (docs/adr/0103).

    Args:
        model: The model.
        settings: How to score.
    """

    def __init__(self, model: Model, settings: ScoringSettings) -> None:
        super().__init__(self._score_all)
        self.model = model
        self.settings = settings
        self._scorer: Scorer | None = None

    def prepare(self, context: RoleContext, spec: ProcessSpec, link: RoleLink) -> None:  # noqa: ARG002
        """Load the model and compare it with the columns. Blocks for as long as that takes."""
        if context.input_schema is None or context.output_schema is None:
            msg = "Scoring needs rows that come in and columns that go out"
            raise UsageError(msg)
        threads = self.settings.threads
        if threads is None:  # as if all workers were on this host: nobody knows their hosts
            threads = choose_threads([spec.host] * spec.parallelism, spec.index)
        loaded = self.model.load(threads)
        settings = self.settings_for(loaded, context.input_schema)
        self._scorer = Scorer(loaded, settings, context.input_schema, context.output_schema)

    def settings_for(self, model: LoadedModel, schema: pa.Schema) -> ScoringSettings:  # noqa: ARG002
        """Return the settings for a loaded model and its columns; may be overridden."""
        return self.settings

    def _score_all(self, context: RoleContext) -> None:
        assert self._scorer is not None
        rows = self.settings.batch_rows
        context.open_reader(rows=rows).takes_what_is_there = True
        for batch in context.arrow_batches(rows):
            context.emit(self._scorer.score(batch), context.timestamps_ms)
