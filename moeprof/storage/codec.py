"""Frozen dataclasses to plain JSON values and back, strictly.

One pair of functions for every record type: the dataclass is the schema, so a field is written
down once. Reading accepts what writing produces: an unknown key, a missing one without a default
(a field that a later version added has one), a wrong type, NaN or an infinity raises RecordError
with the key path (``passes[0].samples[3].span_us``).

Understands dataclasses, int, float, str, bool, None, Literal, unions of these with None,
``tuple[X, ...]``, fixed tuples, ``Mapping[str, X]`` and Any (any JSON value; lists read as tuples,
so that what was read stays immutable). Leaves out files, compression and versions: see ``store``.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import types
from collections.abc import Callable, Mapping, Set
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from moeprof.errors import RecordError

_DO = "the record is damaged, foreign or was edited: run again"

Value = TypeVar("Value")
_Decode = Callable[[Any, str], Any]  # (JSON value, key path) -> typed value


def encode(value: Any, path: str = "") -> Any:
    """The JSON form of a dataclass or of anything a field of one may hold."""
    if value is None or type(value) in (bool, int, str):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise _error(path, str(value), "a finite number")
        return float(value)
    if isinstance(value, (tuple, list)):
        if _all_of(value, int):  # the bulk of a record: span times
            return list(value)
        return [encode(item, f"{path}[{index}]") for index, item in enumerate(value)]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: encode(getattr(value, field.name), _join(path, field.name))
            for field in dataclasses.fields(value)
        }
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise _error(_join(path, str(key)), f"a key of type {type(key).__name__}", "text")
        return {str(key): encode(item, _join(path, str(key))) for key, item in value.items()}
    if isinstance(value, str):  # a StrEnum
        return str(value)
    raise _error(path, f"a {type(value).__name__}", "a value that JSON can hold")


def decode(kind: type[Value], value: Any) -> Value:
    """The dataclass ``kind`` from its JSON form; RecordError names the first key that is wrong."""
    schema: Any = kind
    decoded: Value = _decoder(schema)(value, "")
    return decoded


@functools.cache
def _decoder(kind: Any) -> _Decode:
    """The reading function of one type; built once a type because a record has 10^5 values."""
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return _decode_any
    if dataclasses.is_dataclass(kind):
        return _dataclass_decoder(kind)
    if origin is Literal:
        return _literal_decoder(arguments)
    if origin in (Union, types.UnionType):
        return _optional_decoder(arguments)
    if origin is tuple:
        return _tuple_decoder(arguments)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return _mapping_decoder(arguments[1])
    if kind is float:
        return _decode_float
    if kind in (int, str, bool):
        return _plain_decoder(kind)
    raise TypeError(f"codec does not know {kind!r}")


def _dataclass_decoder(kind: Any) -> _Decode:
    hints = get_type_hints(kind)
    fields = dataclasses.fields(kind)
    readers = {field.name: _decoder(hints[field.name]) for field in fields}
    # most values of a record are held as they are if their type is right: that alone is looked at
    plain = {field.name: _plain_types(hints[field.name]) for field in fields}
    needed = {
        field.name
        for field in fields
        if field.default is field.default_factory is dataclasses.MISSING
    }

    def read_fields(value: Any, path: str) -> Any:
        if not isinstance(value, dict):
            raise _wrong_type(value, path, f"an object ({kind.__name__})")
        if not needed <= value.keys() <= readers.keys():
            raise _wrong_keys(value, readers, needed, path)
        arguments = {
            name: held if type(held) in plain[name] else readers[name](held, _join(path, name))
            for name, held in value.items()
        }
        try:
            return kind(**arguments)
        except RecordError as error:  # an impossible value; say where
            raise RecordError(f"{path or kind.__name__}: {error}") from None

    return read_fields


def _plain_types(hint: Any) -> tuple[type, ...]:
    """The exact types that a field of this type may hold as they are; none where more is asked."""
    kinds = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    return kinds if all(kind in (int, str, bool, type(None)) for kind in kinds) else ()


def _wrong_keys(
    value: dict[str, Any], known: Mapping[str, Any], needed: Set[str], path: str
) -> RecordError:
    unknown = [key for key in value if key not in known]
    if unknown:
        return _error(_join(path, unknown[0]), "an unknown key", "none of that name")
    missing = next(key for key in known if key in needed and key not in value)
    return _error(_join(path, missing), "missing", "a value")


def _tuple_decoder(arguments: tuple[Any, ...]) -> _Decode:
    repeated = len(arguments) == 2 and arguments[1] is Ellipsis
    readers = [_decoder(argument) for argument in arguments if argument is not Ellipsis]

    only = arguments[0] if arguments and set(arguments) <= {arguments[0], Ellipsis} else None

    def read(value: Any, path: str) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise _wrong_type(value, path, "a list")
        if repeated or len(value) == len(readers):  # numbers alone: the bulk of a record
            if only is int and _all_of(value, int):
                return tuple(value)
            if only is float and _all_of(value, float) and all(map(math.isfinite, value)):
                return tuple(value)
        if repeated:
            reader = readers[0]
            return tuple(reader(item, f"{path}[{index}]") for index, item in enumerate(value))
        if len(value) != len(readers):
            raise _error(path, f"a list of {len(value)}", f"{len(readers)} values")
        pairs = zip(readers, value, strict=True)
        return tuple(reader(item, f"{path}[{index}]") for index, (reader, item) in enumerate(pairs))

    return read


def _mapping_decoder(item_type: Any) -> _Decode:
    reader = _decoder(item_type)

    def read(value: Any, path: str) -> Mapping[str, Any]:
        if not isinstance(value, dict):
            raise _wrong_type(value, path, "an object")
        return {key: reader(item, _join(path, key)) for key, item in value.items()}

    return read


def _optional_decoder(arguments: tuple[Any, ...]) -> _Decode:
    others = [argument for argument in arguments if argument is not type(None)]
    if len(others) != 1 or len(others) == len(arguments):
        raise TypeError(f"codec knows unions of one type with None, not {arguments}")
    reader = _decoder(others[0])
    return lambda value, path: None if value is None else reader(value, path)


def _literal_decoder(choices: tuple[Any, ...]) -> _Decode:
    def read(value: Any, path: str) -> Any:
        if not isinstance(value, str) or value not in choices:
            raise _error(path, repr(value)[:40], " or ".join(map(repr, choices)))
        return value

    return read


def _plain_decoder(kind: type) -> _Decode:
    def read(value: Any, path: str) -> Any:
        if type(value) is not kind:  # bool is an int to isinstance, and never one in a record
            raise _wrong_type(value, path, {int: "an integer", str: "text", bool: "a bool"}[kind])
        return value

    return read


def _decode_float(value: Any, path: str) -> float:
    if type(value) not in (int, float):
        raise _wrong_type(value, path, "a number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise _error(path, str(value)[:40], "a finite number")
    return number


def _decode_any(value: Any, path: str) -> Any:
    if isinstance(value, list):
        return tuple(_decode_any(item, f"{path}[{index}]") for index, item in enumerate(value))
    if isinstance(value, dict):
        return {key: _decode_any(item, _join(path, key)) for key, item in value.items()}
    return _decode_float(value, path) if type(value) is float else value


def _all_of(values: tuple[Any, ...] | list[Any], kind: type) -> bool:
    return set(map(type, values)) <= {kind}


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _wrong_type(value: Any, path: str, expected: str) -> RecordError:
    names = {dict: "an object", list: "a list", str: "text", type(None): "null", bool: "a bool"}
    return _error(path, names.get(type(value), f"a {type(value).__name__}"), expected)


def _error(path: str, found: str, expected: str) -> RecordError:
    return RecordError(f"{path or 'the document'} is {found}", expected, _DO)
