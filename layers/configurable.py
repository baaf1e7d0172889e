"""Modules that remember the arguments they were built with, so that JSON can rebuild them.

The constructor's signature is the only schema. The set of classes that a JSON file can name is the
set of subclasses of `Configurable`: Python's own table, no registry beside it.
"""

import inspect
from typing import Any, TypeVar

Config = dict[str, Any]
Built = TypeVar("Built")


class Configurable:
    """Base of every module that is saved as weights + JSON.

    `config` holds `{"class": name, "arguments": {...}}`, nested where an argument is itself
    configurable.
    """

    config: Config

    def __new__(cls: type[Built], *args: Any, **kwargs: Any) -> Built:
        """Record the arguments; nothing is known of them but that they belong to `__init__`."""
        instance = object.__new__(cls)
        bound = inspect.signature(cls.__init__).bind_partial(instance, *args, **kwargs)
        bound.apply_defaults()
        arguments = {name: _to_json(value) for name, value in list(bound.arguments.items())[1:]}
        object.__setattr__(instance, "config", {"class": cls.__name__, "arguments": arguments})
        return instance


def build(config: Config) -> Any:
    """Build the module that a `Configurable.config` describes, with fresh weights.

    Raises:
        ValueError: The class is not a known `Configurable`, or the arguments do not fit it.
    """
    classes = {cls.__name__: cls for cls in _leaves(Configurable)}
    name = config.get("class")
    if name not in classes:
        raise ValueError(f"config names the class {name!r}; known are {sorted(classes)}")
    try:
        return classes[name](**{k: _from_json(v) for k, v in config["arguments"].items()})
    except (KeyError, TypeError) as error:
        raise ValueError(f"config of {name} does not fit its constructor: {error}") from error


def _to_json(value: Any) -> Any:
    if isinstance(value, Configurable):
        return value.config
    return [_to_json(item) for item in value] if isinstance(value, list | tuple) else value


def _from_json(value: Any) -> Any:
    return build(value) if isinstance(value, dict) and "class" in value else value


def _leaves(cls: type) -> list[type]:
    below = [leaf for child in cls.__subclasses__() for leaf in _leaves(child)]
    return below if inspect.isabstract(cls) else [cls, *below]
