"""Parameters by the conventions of scikit-learn, without scikit-learn."""

from __future__ import annotations

import inspect
from typing import Any, TypeVar

from headrace.errors import ConfigError

__all__ = ["Parameters"]

_S = TypeVar("_S", bound="Parameters")


class Parameters:
    """What the constructor takes is kept as it is, under its own name, and can be changed.

    So `sklearn.base.clone` works, and searches that set parameters by name. Subclasses take
    keyword arguments and assign each to the attribute of its name; what cannot work is told
    when it is used.

    Source: scikit-learn, https://scikit-learn.org/stable/developers/develop.html.
    """

    @classmethod
    def parameter_names(cls) -> list[str]:
        """Return the names, in the order of the constructor."""
        return [name for name in inspect.signature(cls.__init__).parameters if name != "self"]

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return all parameters by name.

        Args:
            deep: Whether those of a parameter that has parameters come too, as
                ``<name>__<its parameter>``.
        """
        found: dict[str, Any] = {}
        for name in self.parameter_names():
            value = getattr(self, name)
            if deep and hasattr(value, "get_params") and not isinstance(value, type):
                found |= {f"{name}__{key}": each for key, each in value.get_params().items()}
            found[name] = value
        return found

    def set_params(self: _S, **parameters: Any) -> _S:
        """Change parameters; return the estimator.

        Raises:
            ConfigError: There is no such parameter, or it has none of its own; nothing was
                changed, except by another estimator's `set_params` that refused.
        """
        known = self.parameter_names()
        for name in parameters:
            if name.partition("__")[0] not in known:
                msg = (
                    f"{type(self).__name__} has no parameter {name!r}; it has "
                    f"{', '.join(known)}"
                )
                raise ConfigError(msg)
        own = {name: each for name, each in parameters.items() if "__" not in name}
        nested: dict[str, dict[str, Any]] = {}
        for name, value in parameters.items():
            if name not in own:
                outer, _, inner = name.partition("__")
                nested.setdefault(outer, {})[inner] = value
        for name, values in nested.items():
            holder = own.get(name, getattr(self, name))
            if isinstance(holder, type) or not hasattr(holder, "set_params"):
                first = next(iter(values))
                msg = (
                    f"{type(self).__name__} cannot set {name}__{first}: {name}={holder!r} has "
                    f"no parameters that can be set. Give another {name}"
                )
                raise ConfigError(msg)
        for name, value in own.items():
            setattr(self, name, value)
        for name, values in nested.items():
            getattr(self, name).set_params(**values)
        return self

    def __repr__(self) -> str:
        declared = inspect.signature(type(self).__init__).parameters
        changed = {
            name: value
            for name, value in self.get_params(deep=False).items()
            if value is not declared[name].default
        }
        inner = ", ".join(f"{name}={value!r}" for name, value in changed.items())
        return f"{type(self).__name__}({inner})"
