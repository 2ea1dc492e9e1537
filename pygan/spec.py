"""A choice is a type: every method file declares a frozen `Spec` whose `kind` is the file's own name.

A YAML mapping with a `kind` becomes the `Spec` of that file; `Spec.build` makes the object. There is no registry: a
package lists its files in the literal tuple `KINDS`, and `load_spec` imports the one that is asked for, so a run
imports (and depends on) only the methods it uses.
"""

import importlib
from typing import Any, dataclass_transform

from pydantic import ConfigDict, Field, GetCoreSchemaHandler, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass
from pydantic_core import CoreSchema, core_schema

from pygan.errors import ConfigError


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(Field,))
def spec(cls: type) -> type:
    """Make `cls` a frozen, keyword-only pydantic dataclass that refuses unknown keys.

    The string under a field is its description: what it is, its unit and its source.
    """
    config = ConfigDict(extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)
    return dataclass(frozen=True, kw_only=True, config=config)(cls)


class OneOf:
    """Annotation of a slot: a mapping whose `kind` names one of the files of a package."""

    def __init__(self, package: str, kinds: tuple[str, ...]) -> None:
        self.specs = {kind: importlib.import_module(f"{package}.{kind}").Spec for kind in kinds}

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Choose by `kind`, even where there is one kind only."""
        choices = {kind: handler.generate_schema(cls) for kind, cls in self.specs.items()}
        return core_schema.tagged_union_schema(choices, discriminator="kind")


def load_spec(package: str, values: dict[str, Any], key: str = "") -> Any:
    """Return the `Spec` that `values["kind"]` names inside `package`.

    Args:
        package: dotted name of a package with a `KINDS` tuple, such as "pygan.regularizers".
        values: the YAML mapping, `kind` included.
        key: where the mapping stands in the configuration, for the error message.

    Raises:
        ConfigError: the kind is unknown, a key is unknown, or a value has the wrong type.
    """
    kinds = importlib.import_module(package).KINDS
    kind = values.get("kind")
    if kind not in kinds:
        raise ConfigError(f"{key or package}.kind: got {kind!r}, expected one of {', '.join(kinds)}")
    return parse(importlib.import_module(f"{package}.{kind}").Spec, values, key)


def parse(cls: type, values: dict[str, Any], key: str = "") -> Any:
    """Validate `values` as `cls`; raise `ConfigError` naming the first offending key."""
    try:
        return TypeAdapter(cls).validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in (*filter(None, [key]), *first["loc"]))
        raise ConfigError(f"{where}: {first['msg']} (got {first.get('input')!r})") from error
