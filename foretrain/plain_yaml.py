"""YAML as recipes use it: `1e-3` is a number, a key given twice is an error, and only plain data comes out.

PyYAML follows YAML 1.1, which reads `1e-3` as text and silently keeps the last of two equal keys.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from foretrain.errors import RequestError


class _Loader(yaml.SafeLoader):
    """`yaml.SafeLoader` with the floats of YAML 1.2 and without double keys."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            # `<<` merges may repeat a key on purpose: what is written out wins.
            if key.tag != "tag:yaml.org,2002:merge" and isinstance(key.value, str):
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key '{key.value}' is given twice", key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9][0-9_]*(?:\.[0-9_]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def parse_yaml(text: str) -> Any:
    """The plain data in a YAML text.

    Raises:
        ValueError: it is not valid YAML; the message is one line with the place and the fault.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark is not None else ""
        raise ValueError(f"{where}{error.problem or error}") from error
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error


def read_mapping(path: Path, what: str, keys: str) -> dict[str, Any]:
    """The mapping in a YAML file that somebody wrote.

    Args:
        path: of the file.
        what: it should hold, for messages: `recipe`, `claim`.
        keys: some that it should have, in words.

    Raises:
        RequestError: no such file, broken YAML, or no mapping.
    """
    try:
        data = parse_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RequestError(f"The {what} {path} cannot be read: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise RequestError(f"The {what} {path} is not UTF-8 text (byte {error.start}).") from error
    except ValueError as error:
        raise RequestError(f"The {what} {path} is not valid YAML: {error}.") from error
    if not isinstance(data, dict):
        raise RequestError(f"The {what} {path} should be a YAML mapping with keys such as {keys}.")
    return data


def format_yaml(data: Any) -> str:
    """Plain data as YAML text that `parse_yaml` reads back to equal data; keys keep their order."""
    return str(yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100))


class _Dumper(yaml.SafeDumper):
    """`yaml.SafeDumper` that quotes texts which `_Loader` would read as numbers."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    # PyYAML writes Unicode's own line breaks bare, and reads them back as spaces; in double quotes it escapes them.
    style = '"' if re.search("[\x85\u2028\u2029\ufeff]", text) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.yaml_implicit_resolvers = _Loader.yaml_implicit_resolvers
_Dumper.add_representer(str, _represent_text)
