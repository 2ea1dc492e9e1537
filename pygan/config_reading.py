"""Reading a study file: YAML without its pitfalls, and what pydantic finds wrong as a sentence that names the key."""

import difflib
import json
from typing import Any

import yaml
from pydantic import ValidationError

from pygan import features
from pygan.errors import ConfigError


class _Loader(yaml.SafeLoader):
    """YAML that refuses a key given twice and a key that is not text."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        own = [key for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        seen = set()
        for key in own:
            name = self.construct_object(key, deep=True)
            line = key.start_mark.line + 1
            if not isinstance(name, str):
                raise ConfigError(f"line {line}: the key {key.value!r} is read as {name!r}, put it in quotes")
            if name in seen:
                raise ConfigError(f"line {line}: the key {name!r} is there twice")
            seen.add(name)
        return super().construct_mapping(node, deep)


def read_yaml(text: str) -> Any:
    """Return what a YAML text holds; ConfigError names the line of a key given twice or of what is no YAML."""
    try:
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(f"line {line}: not YAML ({error.problem})") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"not YAML ({error})") from error


def read_json(text: str) -> Any:
    """Return what a JSON text holds; ConfigError names the line of what is no JSON."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(f"line {error.lineno}: not JSON ({error.msg})") from error


def sentence(error: ValidationError, schema: dict[str, Any]) -> str:
    """Return the first problem in one sentence; an unknown key comes first, as it often explains a missing one.

    Args:
        schema: the JSON schema of the model that refused the values.
    """
    problems = error.errors(include_url=False)
    # Where a word or a mapping may stand, a mapping that was given is not a misspelled word.
    problems = [p for p in problems if p["type"] != "literal_error" or not isinstance(p["input"], dict)] or problems
    unknown = ("unexpected_keyword_argument", "extra_forbidden")
    first = next((p for p in problems if p["type"] in unknown), problems[0])
    keys, node = _walk(first["loc"], schema)
    where, got, context = ".".join(map(str, keys)) or "the study", first["input"], first.get("ctx", {})
    match first["type"]:
        case "unexpected_keyword_argument" | "extra_forbidden":
            _, parent = _walk(first["loc"][:-1], schema)
            return f"{where}: unknown key, {expected(str(keys[-1]), list(parent.get('properties', {})))}"
        case "missing" | "missing_argument" | "missing_keyword_only_argument":
            return f"{where}: the key is missing"
        case "union_tag_not_found":
            kinds = list(node["discriminator"]["mapping"])
            return f"{where}: got {got!r}, expected a mapping with the key 'kind' (one of {', '.join(kinds)})"
        case "union_tag_invalid":
            kind, kinds = context["tag"], list(node["discriminator"]["mapping"])
            if kind in features.METRIC_KINDS:
                return f"{where}.kind: {kind} judges the results, so it cannot take part in training"
            return f"{where}.kind: got {kind!r}, {expected(kind, kinds)}"
        case "literal_error":
            choices = node.get("enum", [node.get("const")])
            return f"{where}: got {got!r}, {expected(str(got), list(map(str, choices)))}"
        case "string_pattern_mismatch":
            return f"{where.removesuffix('.[key]')}: a name is made of letters, digits and . _ -, got {got!r}"
        case "value_error":
            return f"{where}: {first['msg'].removeprefix('Value error, ')}"
    hint = ""
    if isinstance(got, str) and first["type"].startswith("float") and _is_number(got):
        hint = f" (YAML reads {got} as text: write {float(got)!r} or put a point in it, as in 1.0e-3)"
    return f"{where}: got {got!r}, expected {first['msg'].removeprefix('Input should be ')}{hint}"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def expected(got: str, known: list[str]) -> str:
    """Return what was meant: the known name closest to `got`, or all of them."""
    close = difflib.get_close_matches(got, known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"expected one of {', '.join(known)}"


def _walk(loc: tuple[str | int, ...], schema: dict[str, Any]) -> tuple[list[str | int], dict[str, Any]]:
    """Follow the location of an error through the schema: the YAML keys on the way and the schema at its end."""
    definitions = schema.get("$defs", {})

    def resolved(node: dict[str, Any]) -> dict[str, Any]:
        choices = [choice for choice in node.get("anyOf", ()) if choice.get("type") != "null"]
        if len(choices) == 1:
            node = choices[0]
        return resolved(definitions[node["$ref"].rsplit("/", 1)[1]]) if "$ref" in node else node

    keys: list[str | int] = []
    node = resolved(schema)
    for part in loc:
        if "anyOf" in node:
            node = resolved(_branch(node["anyOf"], part))
            continue
        if "discriminator" in node and part in node["discriminator"]["mapping"]:
            node = resolved({"$ref": node["discriminator"]["mapping"][part]})
            continue
        if isinstance(part, str) and not node.keys() & {"properties", "patternProperties"}:
            continue  # the branch of a choice between types, no key of the file
        keys.append(part)
        any_key = next(iter(node.get("patternProperties", {}).values()), {})
        child = node.get("items") if isinstance(part, int) else node.get("properties", {}).get(part, any_key)
        node = resolved(child or {})
    return keys, resolved(_branch(node["anyOf"], "")) if "anyOf" in node else node


def _branch(choices: list[dict[str, Any]], part: str | int) -> dict[str, Any]:
    """Return the schema of the type that a part of an error's location names among several."""
    marks = {"tagged-union": "discriminator", "literal": "enum"}
    mark = next((mark for start, mark in marks.items() if str(part).startswith(start)), None)
    return next((choice for choice in choices if mark in choice), choices[0])


def known(key: str, name: str, names: dict[str, Any]) -> None:
    """Raise `ConfigError` where `names` does not have `name`, with the most similar one."""
    if name not in names:
        raise ConfigError(f"{key}: got {name!r}, {expected(name, list(names))}")
