"""What of a process that trains is written to be served, for each completed checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from headrace.errors import ConfigError, UsageError
from headrace.exchange import StateFile
from headrace.role.context import RoleContext
from headrace.role.export_dir import ExportDirectory
from headrace.role.exports import Exports, Servable
from headrace.role.reader import BatchReader
from headrace.role.settings import TrainingSettings

__all__ = ["ExportingContext"]

_DEFAULT = "model"


class ExportingContext(RoleContext):
    """The part of a `TrainingContext` that has to do with `export_to`.

    Framework layers say what a model is and how it is served by `_servable`, and call `_choose`
    where the user chooses. Process 0 alone writes.
    """

    settings = TrainingSettings()
    _exported: str | None = None
    _servable_of: Servable | None = None
    _exports: Exports | None = None
    _refusal: ConfigError | None = None

    def checkpointed(self, **objects: Any) -> Any:
        """Keep objects in Flink's checkpoints; see `RoleContext.checkpointed`.

        With `export_to`, chooses what is exported; see `exported`.
        """
        given = super().checkpointed(**objects)
        if self.settings.export_to is None:
            return given
        models = [name for name, each in objects.items() if self._is_model(each)]
        name = _DEFAULT if _DEFAULT in models else models[0] if len(models) == 1 else None
        if name is not None:
            try:
                self._choose(objects[name], self._servable)
            except ConfigError as exc:  # ctx.exported may yet choose another one
                self._refusal = exc
        return given

    def open_reader(self, *, rows: int, epochs: int = 1) -> BatchReader:
        """Return the reader of the input, once a first version is in `export_to`, if it is set.

        See `RoleContext.open_reader`.

        Raises:
            UsageError: With `export_to`, no model is chosen.
            ConfigError: With `export_to`, the model has no form to be served in, or nothing can
                be written there.
        """
        is_first = self._reader is None
        reader = super().open_reader(rows=rows, epochs=epochs)
        if is_first:
            self._begin_exports()
        return reader

    def _is_model(self, each: object) -> bool:  # noqa: ARG002 - for framework layers
        """Say whether an object can be served by itself."""
        return False

    def _servable(self, model: Any) -> Servable:
        """Return the form in which a model is served if nothing else was said.

        Raises:
            ConfigError: There is none for it.
        """
        raise NotImplementedError

    def _choose(self, model: object, make: Callable[[Any], Servable]) -> None:
        """Export `model`, in the form that `make` returns; it is called where that is written.

        Raises:
            UsageError: It was not named to `checkpointed`, or the input is being read already.
        """
        if self.settings.export_to is None:
            return
        named = self._kept.named
        name = next((name for name, each in named.items() if each is model), None)
        if name is None or self._reader is not None:
            msg = (
                f"ctx.exported takes a model that ctx.checkpointed has named "
                f"({', '.join(map(repr, named)) or 'nothing so far'}), before the input is read"
            )
            raise UsageError(msg)
        self._exported = name
        if self.index == 0 and self._feed is not None:
            with self._generators.unmoved():  # Keras draws seeds for the layers of a copy
                self._servable_of = make(model)
            self._refusal = None

    def _begin_exports(self) -> None:
        directory, feed, name = self.settings.export_to, self._feed, self._exported
        if directory is None or feed is None:
            return
        if name is None:
            msg = (
                f"export_to={str(directory)!r}: which model? Name it to ctx.checkpointed as "
                "model=..., or choose one of those named there by ctx.exported, before the "
                "input is read"
            )
            raise UsageError(msg)
        if self._refusal is not None:
            raise self._refusal
        servable = self._servable_of
        if servable is None:
            return
        place = ExportDirectory(
            directory, suffix=servable.suffix, keep=self.settings.keep_exports
        )
        place.open()
        with self._generators.unmoved():
            self._write_first(place, servable, self._kept.state_of(name))
        self._exports = Exports(feed, place, name, servable)
        feed.on_complete(self._exports.complete)

    def _write_first(self, place: ExportDirectory, servable: Servable, state: Any) -> None:
        """Show before any row that the model can be written."""
        if not place.has_version:
            place.put("initial", lambda path: servable.write(state, path))
        elif not self.is_restored:  # else it may have gone on without exports, and may again
            place.rehearse(lambda path: servable.write(state, path))

    def _capture(self, checkpoint_id: int | None) -> StateFile | None:
        self._collect_exports()
        file = super()._capture(checkpoint_id)
        if self._exports is not None and file is not None and checkpoint_id is not None:
            self._exports.offer(checkpoint_id, file)
        return file

    def _tick(self) -> None:
        self._collect_exports()
        super()._tick()

    def _collect_exports(self) -> None:
        if self._exports is not None and (news := self._exports.collect()):
            self._reporter.update(news)

    def _end_exports(self, *, is_success: bool) -> None:
        """End the exports, at success once that which is due is written. Idempotent."""
        if self._exports is not None:
            limit_s = self.timeouts.stop_timeout_s / 2  # the rest is for all else that ends
            self._exports.close(limit_s if is_success else None)
            if is_success:
                self._collect_exports()
                self._reporter.flush()
            self._exports = None
