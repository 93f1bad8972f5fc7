"""The file of a saved model: one safetensors file, its header, and values as JSON.  Nothing in it is ever executed.

::

    persistence.save -> encode -> write(path)  ...  read(path) -> Decoder -> persistence.load

Everything except tensors is one JSON object, under the single key ``KEY`` of the safetensors metadata.  Its values are
tagged: a JSON object stands for a type that JSON lacks: ``{"tuple": [...]}``, ``{"array": "name of a tensor"}``, ...
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fastmlp.data.files import replacing
from fastmlp.data.optional import needed
from fastmlp.model import choices

KEY = "fastmlp model"

#: (major, minor) of the format: readers refuse another major; a newer minor may hold more than they know.
VERSION = (1, 0)

#: Most bytes of a header: no file needs more, and JSON takes a multiple of its text in memory.
MAX_HEADER = 4 << 20

#: Number of characters of a reason that a message shows: values from a file can be of any length.
MAX_REASON = 2000

Tensors = dict[str, np.ndarray]


class ModelFileError(ValueError):
    """A file is not a saved model, or is damaged, or holds something that this version does not accept.

    Attributes
    ----------
    path : str
    field : str
        The part of the file.
    reason : str
    """

    def __init__(self, path: str | os.PathLike[str], field: str, reason: str) -> None:
        self.path, self.field, self.reason = os.fspath(path), field, reason
        super().__init__(f"{self.path}: {field}: {reason}")

    def __reduce__(self) -> tuple:
        return type(self), (self.path, self.field, self.reason)


@contextmanager
def refusing(path: str | os.PathLike[str], field: str) -> Iterator[None]:
    """Turn any error about a field into one :class:`ModelFileError` that names it."""
    try:
        yield
    except (ModelFileError, MemoryError, ImportError, TimeoutError):
        raise  # sizes are checked before anything is allocated, so a lack of memory is about the machine
    except Exception as error:
        # a file may hold any values, so checks and constructors may raise anything
        reason = f"has no entry {error}" if isinstance(error, KeyError) else str(error) or type(error).__name__
        raise ModelFileError(path, field, reason[:MAX_REASON]) from error


# --- the container ---------------------------------------------------------------------------------------------------


class Model(NamedTuple):
    """What a file holds: the JSON object of its header, and the tensors by name."""

    header: dict[str, Any]
    tensors: Tensors


def write(path: str | os.PathLike[str], header: Mapping[str, Any], tensors: Tensors) -> None:
    """Write a model whole or not at all; the same model gives the same bytes, no more than ``MAX_HEADER`` of header."""
    from_tensors = needed("safetensors.numpy", "a saved model", '"fastmlp[save]"').save
    tensors = {name: np.asarray(tensor, order="C") for name, tensor in tensors.items()}  # it reads raw memory
    header = {"format": f"{VERSION[0]}.{VERSION[1]}", **header, "tensors_sha256": _digest_of_tensors(tensors)}
    header["sha256"] = _digest(header)
    content = from_tensors(tensors, {KEY: json.dumps(header, allow_nan=False)})
    n_header = int.from_bytes(content[:8], "little")
    if n_header > MAX_HEADER:
        raise ValueError(f"the header of {os.fspath(path)} would have {n_header} bytes, the limit is {MAX_HEADER}")
    with replacing(Path(path)) as stream:
        stream.write(content)


def read(path: str | os.PathLike[str]) -> Model:
    """Read the header and the tensors of a file; check its version and checksums.

    A ModelFileError says that this is not a model, or is damaged; an OSError that it cannot be opened.
    """
    with _opened(path) as (stream, header), refusing(path, "tensors"):
        tensors = {name: _tensor(stream, name) for name in sorted(stream.keys())}
        if _digest_of_tensors(tensors) != header["tensors_sha256"]:
            raise ValueError("the file is damaged: the checksum is another one")
        return Model(header, tensors)


def read_header(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the header alone; check its version and checksum."""
    with _opened(path) as (_, header):
        return header


@contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Yield (safetensors file, header)."""
    safe_open = needed("safetensors", "a saved model", '"fastmlp[save]"').safe_open
    _check_size(path)
    with refusing(path, "file"):
        # the library checks that tensors fill the file, without gaps, before it hands out any
        stream = safe_open(os.fspath(path), framework="numpy")
    with stream:
        with refusing(path, "header"):
            header = _header(stream.metadata() or {})
        yield stream, header


def _check_size(path: str | os.PathLike[str]) -> None:
    """Compare the size of a file with its first bytes, before anything is read."""
    try:
        status = os.stat(os.fspath(path))  # a missing file is an OSError, as everywhere
    except ValueError as error:
        raise ModelFileError(path, "file", str(error)) from error
    if not stat.S_ISREG(status.st_mode):
        raise OSError(f"{os.fspath(path)} is no regular file")
    with open(path, "rb") as stream:
        n_header = int.from_bytes(stream.read(8), "little")
    with refusing(path, "file"):
        if n_header > status.st_size - 8:
            raise ValueError(f"this is no safetensors file, or it was cut short: it has {status.st_size} bytes")
        if n_header > MAX_HEADER:
            raise ValueError(f"its header has {n_header} bytes, that of a model at most {MAX_HEADER}")


def _header(metadata: Mapping[str, str]) -> dict[str, Any]:
    """Return the JSON object of a file; check its version and checksum."""
    if KEY not in metadata:
        raise ValueError("this safetensors file holds no fastmlp model")
    header = json.loads(metadata[KEY], parse_constant=_refuse_constant)
    if not isinstance(header, dict):
        raise ValueError("it is no JSON object")
    check_version(header["format"], header.get("fastmlp"))
    if _digest(header) != header["sha256"]:
        raise ValueError("the file is damaged: the checksum is another one")
    return header


def check_version(version: Any, writer: Any) -> tuple[int, int]:
    """Return (major, minor) of a file that this version can read."""
    if not isinstance(version, str) or not re.fullmatch(r"\d{1,6}\.\d{1,6}", version):
        raise ValueError(f"format must be a version such as '1.0', got {version!r}")
    major, minor = (int(part) for part in version.split("."))
    if major != VERSION[0]:
        raise ValueError(
            f"the file has format {version}, written by fastmlp {writer!s:.40}; this fastmlp reads format {VERSION[0]}."
            f" Load it with {'a newer' if major > VERSION[0] else 'an older'} fastmlp"
        )
    return major, minor


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


#: safetensors' names of the dtypes that a model holds.
_DTYPES = {"F64", "F32", "F16", "I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL"}


def _tensor(stream: Any, name: str) -> np.ndarray:
    view = stream.get_slice(name)
    if view.get_dtype() not in _DTYPES or len(view.get_shape()) > 8:
        raise ValueError(f"{name!r} is of {view.get_dtype()}, {len(view.get_shape())} dimensions: no model has such")
    return stream.get_tensor(name)


def _digest(header: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a header without its own checksum; white space and order do not matter."""
    content = {name: value for name, value in header.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _digest_of_tensors(tensors: Tensors) -> str:
    """Return the SHA-256 of tensors with names, dtypes and shapes; their places in the file do not matter."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].astype(tensors[name].dtype.newbyteorder("<"), copy=False)
        digest.update(json.dumps([name, tensor.dtype.str, tensor.shape]).encode())
        digest.update(np.ascontiguousarray(tensor).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


# --- values as JSON --------------------------------------------------------------------------------------------------


def encode(value: Any, tensors: Tensors, where: str) -> Any:
    """Return a value as tagged JSON; arrays go to `tensors`, under the name of the place where they are.

    It may be None, bool, int, float, str, a NumPy scalar (kept as Python's), a numeric array, an array of str,
    datetime64 or timedelta64, a RandomState (MT19937), a user's formula, and lists, tuples and dicts of these. For
    anything else a TypeError says `where` it is.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        # more than 53 bits are not safe with every reader of JSON
        return int(value) if abs(value) < 2**53 else {"int": str(value)}
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {"float": repr(float(value))}
    if isinstance(value, list | tuple):
        items = [encode(item, tensors, f"{where}.{i}") for i, item in enumerate(value)]
        return items if isinstance(value, list) else {"tuple": items}
    if isinstance(value, Mapping):
        return {"dict": [_encode_item(key, item, tensors, where) for key, item in value.items()]}
    if isinstance(value, np.ndarray):
        return _encode_array(value, tensors, where)
    if isinstance(value, np.random.RandomState):
        return {"random_state": encode(_state_of(value, where), tensors, where)}
    if choices.is_formula(value):
        return {"formula": _encode_formula(value)}
    what = "a function" if callable(value) else f"of type {type(value).__name__}"
    raise TypeError(f"{where}={value!r} is {what}, which a model file cannot hold")


def _encode_item(key: Any, item: Any, tensors: Tensors, where: str) -> list[Any]:
    key = key.item() if isinstance(key, np.generic) else key
    if key is not None and not isinstance(key, bool | int | float | str):
        raise TypeError(f"{where} has the key {key!r}; a model file holds dicts whose keys are numbers or text")
    return [encode(key, tensors, where), encode(item, tensors, f"{where}.{key}")]


def _encode_array(array: np.ndarray, tensors: Tensors, where: str) -> dict[str, Any]:
    kind, dtype = array.dtype.kind, array.dtype
    native = np.asarray(array, dtype.newbyteorder("="), order="C")
    if kind == "O" and array.ndim == 1 and all(isinstance(item, str) for item in array):
        texts = [item.encode("utf-8", "surrogatepass") for item in array]
        _keep(tensors, where, np.frombuffer(b"".join(texts), dtype=np.uint8))
        _keep(tensors, f"{where}.lengths", np.array([len(text) for text in texts], dtype=np.int64))
        return {"strings": where}
    if kind == "U":
        points = native.reshape(-1).view(np.uint32)
        _keep(tensors, where, points.reshape(*array.shape, dtype.itemsize // 4))
        return {"text": where}
    if kind in "mM":
        _keep(tensors, where, native.view(np.int64))
        return {"time": [where, dtype.newbyteorder("=").name]}
    if kind in "biu" or dtype in (np.float16, np.float32, np.float64):
        _keep(tensors, where, native)
        return {"array": where}
    raise TypeError(f"{where} is an array of {dtype}, which a model file cannot hold")


def _keep(tensors: Tensors, name: str, array: np.ndarray) -> None:
    assert name not in tensors, name
    tensors[name] = array


def _state_of(state: np.random.RandomState, where: str) -> dict[str, Any]:
    content: Any = state.get_state(legacy=False)
    if content["bit_generator"] != "MT19937":
        raise TypeError(f"{where} is a RandomState of {content['bit_generator']}; a model file holds those of MT19937")
    key, pos = content["state"]["key"], int(content["state"]["pos"])
    return {"key": key.copy(), "pos": pos, "has_gauss": int(content["has_gauss"]), "gauss": float(content["gauss"])}


def _encode_formula(formula: Any) -> dict[str, Any]:
    text, other = formula._state
    if "delta" in formula.kinds:
        return {"loss": _encode_text(text) | {"link": other}}
    return {"activation": _encode_text(text) | {"slope": None if other is None else _encode_text(other)}}


def _encode_text(text: Any) -> dict[str, Any]:
    return {"source": text.source, "constants": {name: encode(value, {}, name) for name, value in text.constants}}


class Decoder:
    """Decode what :func:`encode` has encoded; each tensor is taken out once.

    With `trust_formulas` users' formulas are compiled. Otherwise None stands in their places, and ``formulas`` has
    their texts.
    """

    #: What values can be that JSON lacks; a method decodes each.
    KINDS = ("int", "float", "tuple", "dict", "array", "strings", "text", "time", "random_state", "formula")

    def __init__(self, tensors: Tensors, trust_formulas: bool) -> None:
        self.tensors = dict(tensors)
        self.trust_formulas = trust_formulas
        self.formulas: list[str] = []

    def __call__(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self(item) for item in value]
        if not isinstance(value, dict):
            return value
        if len(value) != 1 or next(iter(value)) not in self.KINDS:
            raise ValueError(f"an entry of unknown kind: {list(value)}")
        ((kind, content),) = value.items()
        return getattr(self, f"_{kind}")(content)

    def _int(self, content: Any) -> int:
        if not isinstance(content, str) or not re.fullmatch(r"-?\d{1,400}", content):
            raise ValueError(f"{content!r} is no whole number")
        return int(content)

    def _float(self, content: Any) -> float:
        if content not in ("inf", "-inf", "nan"):
            raise ValueError(f"{content!r} is no number")
        return float(content)

    def _tuple(self, content: Any) -> tuple:
        return tuple(map(self, _listed(content)))

    def _dict(self, content: Any) -> dict[Any, Any]:
        decoded: dict[Any, Any] = {}
        for item in _listed(content):
            key, value = (self(part) for part in _listed(item, 2))
            if key is not None and not isinstance(key, bool | int | float | str):
                raise ValueError(f"{key!r} is no key")
            decoded[key] = value
        if len(decoded) != len(content):
            raise ValueError("a key comes twice")
        return decoded

    def _array(self, name: Any) -> np.ndarray:
        if not isinstance(name, str) or name not in self.tensors:
            raise ValueError(f"there is no tensor {name!r}, or it is used twice")
        return self.tensors.pop(name)

    def _typed(self, name: Any, dtype: Any) -> np.ndarray:
        tensor = self._array(name)
        if tensor.dtype != dtype:
            raise ValueError(f"the tensor {name!r} must be of {np.dtype(dtype)}, got {tensor.dtype}")
        return tensor

    def _strings(self, name: Any) -> np.ndarray:
        content, lengths = self._typed(name, np.uint8), self._typed(f"{name}.lengths", np.int64)
        one_dimensional = content.ndim == lengths.ndim == 1
        if not one_dimensional or ((lengths < 0) | (lengths > content.size)).any() or lengths.sum() != content.size:
            raise ValueError("the lengths of its texts make no sense")
        ends = np.cumsum(lengths)
        data = content.tobytes()
        pieces = [data[end - n : end] for end, n in zip(ends.tolist(), lengths.tolist(), strict=True)]
        texts = np.empty(len(pieces), dtype=object)
        texts[:] = [piece.decode("utf-8", "surrogatepass") for piece in pieces]
        return texts

    def _text(self, name: Any) -> np.ndarray:
        points = self._typed(name, np.uint32)
        if points.ndim == 0 or points.size == 0 or points.max() > 0x10FFFF:
            raise ValueError(f"the tensor {name!r} holds no text")
        return np.ascontiguousarray(points).view((np.str_, points.shape[-1])).reshape(points.shape[:-1])

    def _time(self, content: Any) -> np.ndarray:
        name, dtype = _listed(content, 2)
        if not isinstance(dtype, str) or not re.fullmatch(r"(datetime|timedelta)64(\[\d{0,9}[A-Za-z]{1,2}\])?", dtype):
            raise ValueError(f"{dtype!r:.100} is no unit of time")
        return self._typed(name, np.int64).view(np.dtype(dtype))

    def _random_state(self, content: Any) -> np.random.RandomState:
        state = self(content)
        key, pos = state["key"], state["pos"]
        has_gauss, gauss = state["has_gauss"], state["gauss"]
        if not isinstance(key, np.ndarray) or key.dtype != np.uint32 or key.shape != (624,):
            raise ValueError("the state of MT19937 has 624 words of 32 bits")
        if type(pos) is not int or not 0 <= pos <= 624 or has_gauss not in (0, 1) or type(gauss) is not float:
            raise ValueError("this is no state of MT19937")
        made = np.random.RandomState(0)
        made.set_state(("MT19937", key, pos, has_gauss, gauss))
        return made

    def _formula(self, content: Any) -> Any:
        if not isinstance(content, dict) or len(content) != 1 or not content.keys() <= {"activation", "loss"}:
            raise ValueError("this is no formula")
        ((kind, formula),) = content.items()
        other = "slope" if kind == "activation" else "link"
        texts = [self._checked(formula, other)]
        if kind == "activation" and formula[other] is not None:
            texts.append(self._checked(formula[other]))
        if not self.trust_formulas:
            self.formulas += [_shown(kind, *text) for text in texts]
            return None
        from fastmlp.kernels.language import ActivationFormula, LossFormula
        from fastmlp.kernels.syntax import Text

        made = []
        for source, constants in texts:
            Text.of(source, constants)  # refuses what is no formula
            made.append(Text(source, tuple(constants.items())))
        return ActivationFormula(*made) if kind == "activation" else LossFormula(made[0], formula["link"])

    def _checked(self, text: Any, *others: str) -> tuple[str, dict[str, float]]:
        """Return (source, constants) of a formula's text, which has these other entries."""
        entries = {"source", "constants", *others}
        if not isinstance(text, dict) or not entries <= text.keys():
            raise ValueError(f"the text of a formula has the entries {sorted(entries)}, got {text!r:.100}")
        if not isinstance(text["source"], str) or not text["source"].startswith("def "):
            raise ValueError(f"the source of a formula is text that begins with def, got {text['source']!r:.100}")
        if not isinstance(text["constants"], dict):
            raise ValueError(f"the constants of a formula are numbers by name, got {text['constants']!r:.100}")
        constants = {name: self(value) for name, value in text["constants"].items()}
        if not all(type(value) is float for value in constants.values()):
            raise ValueError("the constants of a formula are numbers")
        return text["source"], constants


def _shown(kind: str, source: str, constants: Mapping[str, float]) -> str:
    given = "".join(f"\n    # {name} = {value!r}" for name, value in constants.items())
    return f"    @fastmlp.{kind}{given}\n" + "\n".join(f"    {line}" for line in source.splitlines())


def _listed(content: Any, n: int | None = None) -> Sequence[Any]:
    if not isinstance(content, list) or n not in (None, len(content)):
        raise ValueError("an entry of a wrong form")
    return content
