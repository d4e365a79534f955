"""Floating-point tensors in .safetensors and .npz files, widened to float32.

numpy has no bfloat16, so raw bytes are read and widened here: every float16 and bfloat16 value is
a float32 value, nothing is rounded on reading. Only what a routing needs is supported.
"""

from __future__ import annotations

import json
import struct
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
from numpy.typing import NDArray

from moeprof.errors import UsageError, nearest

Float32Array = NDArray[np.float32]
MAX_HEADER_BYTES = 100_000_000  # the library's own limit


@dataclass(frozen=True, slots=True, eq=False)
class StoredTensor:
    """A tensor as float32, with the name of the type it was stored in."""

    values: Float32Array
    dtype: str


def read_tensors(path: Path, keys: Sequence[str]) -> dict[str, StoredTensor]:
    """The tensors ``keys`` of a .safetensors or .npz file; UsageError in one line if it cannot."""
    if path.suffix == ".npz":
        return {key: _widen_array(array, path, key) for key, array in _npz(path, keys).items()}
    if path.suffix != ".safetensors":
        raise UsageError(f"{path} is neither .safetensors nor .npz", do="convert the file")
    try:
        stored = dict(safetensors.deserialize(path.read_bytes()))  # type: ignore[no-untyped-call]
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    except safetensors.SafetensorError as error:
        raise UsageError(f"{path} is no safetensors file: {error}", do="fetch it again") from error
    return {key: _widen_entry(_find(stored, key, path), path, key) for key in keys}


def read_notes(path: Path) -> dict[str, str]:
    """What the writer of a safetensors file noted in it; empty where there is nothing to read."""
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            notes = json.loads(file.read(min(length, MAX_HEADER_BYTES))).get("__metadata__")
    except (OSError, ValueError, AttributeError, struct.error):
        return {}
    return {str(key): str(value) for key, value in notes.items()} if notes else {}


def write_routing_blob(path: Path, logits: Float32Array, bias: Float32Array) -> None:
    """A safetensors file with routing_logits [T, E] float32 and routing_bias [E] bfloat16."""
    path.write_bytes(routing_blob(logits, bias))


def routing_blob(
    logits: Float32Array, bias: Float32Array, notes: Mapping[str, str] | None = None
) -> bytes:
    """The bytes of such a file. ``bias`` must be exactly bfloat16; notes: kept in its header.

    The format is written by hand (a length, a JSON header, the bytes): the library's writer for
    numpy has no bfloat16, the one for torch would make torch a need of every reader, and the
    function below both took other arguments in 0.8 than before.
    """
    bits = np.ascontiguousarray(bias, dtype="<f4").view("<u4")
    if np.any(bits & 0xFFFF):
        raise UsageError("a routing bias is not bfloat16", do="round it with round_to_bfloat16")
    values = np.ascontiguousarray(logits, dtype="<f4").tobytes()
    payloads = [
        ("routing_logits", "F32", logits.shape, values),
        ("routing_bias", "BF16", bias.shape, (bits >> 16).astype("<u2").tobytes()),
    ]
    header: dict[str, Any] = {"__metadata__": dict(notes)} if notes else {}
    position = 0
    for name, dtype, shape, payload in payloads:
        offsets = [position, position + len(payload)]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": offsets}
        position = offsets[1]
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + b"".join(p[3] for p in payloads)


def round_to_bfloat16(values: Float32Array) -> Float32Array:
    """The nearest bfloat16 of finite ``values``, ties to even, as float32."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> 16) & np.uint32(1))) & np.uint32(0xFFFF0000)
    return rounded.view(np.float32)


def _find(stored: Any, key: str, path: Path) -> Any:
    if key not in stored:
        raise UsageError(f"{path} has no tensor {key!r}", do=nearest(key, stored))
    return stored[key]


def _npz(path: Path, keys: Sequence[str]) -> dict[str, NDArray[Any]]:
    try:
        with np.load(path, allow_pickle=False) as stored:
            return {key: _find(stored, key, path) for key in keys}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        reason = getattr(error, "strerror", None) or "it is no .npz file of plain arrays"
        raise UsageError(f"cannot read {path}: {reason}") from error


def _widen_array(array: NDArray[Any], path: Path, key: str) -> StoredTensor:
    if array.dtype.kind != "f" or array.dtype.itemsize > 4:
        raise UsageError(f"{key} in {path} is {array.dtype}", "float32 or float16")
    return StoredTensor(array.astype(np.float32), array.dtype.name)


def _widen_entry(entry: Any, path: Path, key: str) -> StoredTensor:
    raw, dtype, shape = bytes(entry["data"]), entry["dtype"], tuple(entry["shape"])
    if dtype == "BF16":
        values = (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32)
    elif dtype in ("F32", "F16"):
        values = np.frombuffer(raw, "<f4" if dtype == "F32" else "<f2").astype(np.float32)
    else:
        raise UsageError(f"{key} in {path} is {dtype}", "F32, F16 or BF16")
    names = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
    return StoredTensor(values.reshape(shape), names[dtype])
