"""The arrays of a glTF: in stretches of buffers, plain, sparse, normalised, or packed by Draco or meshopt."""

import base64
import binascii
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar
from urllib.parse import unquote, unquote_to_bytes

import numpy as np
from jaxtyping import Int, Shaped
from numpy import ndarray

from keyorbit.errors import InputError, first_line
from keyorbit.synthetic.meshes.gltf.document import Accessor, Gltf, Primitive
from keyorbit.values import Amount, from_values

T = TypeVar("T")
DRACO, MESHOPT = "KHR_draco_mesh_compression", ("EXT_meshopt_compression", "KHR_meshopt_compression")
# Numbers in an element of an array.
NUMBERS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT2": 4, "MAT3": 9, "MAT4": 16}
_TYPES = {5120: "<i1", 5121: "<u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}


@dataclass(frozen=True)
class _Draco:
    bufferView: Amount
    attributes: dict[str, Amount]


@dataclass(frozen=True)
class _Meshopt:
    buffer: Amount
    byteLength: Amount
    byteStride: Amount
    count: Amount
    mode: Literal["ATTRIBUTES", "TRIANGLES", "INDICES"]
    byteOffset: Amount = 0
    filter: Literal["NONE", "OCTAHEDRAL", "QUATERNION", "EXPONENTIAL"] = "NONE"


class Arrays:
    """The arrays of one file; its buffers are read when they are needed.

    Args:
        told: the file's JSON.
        rest: the bytes that follow it in a GLB.
        beside: gives the content of a file by its name.
        where: names the file in error messages.
    """

    def __init__(self, told: Gltf, rest: bytes, beside: Callable[[str], bytes], where: str) -> None:
        self.told, self.where = told, where
        self._rest, self._beside = rest, beside
        self._buffers: dict[int, bytes] = {}
        self._views: dict[int, bytes] = {}

    def get(self, kind: str, entries: Sequence[T], i: int) -> T:
        """Return an entry by its number.

        Raises:
            InputError: there is none; ``kind`` names it.
        """
        if i >= len(entries):
            raise InputError(f"{self.where} names {kind} {i}; there are {len(entries)}, from 0 on")
        return entries[i]

    def view(self, i: int) -> bytes:
        """Return the bytes of a stretch, unpacked where meshopt packed them.

        Raises:
            InputError: it is not there, is longer than its buffer, or cannot be unpacked.
        """
        if i not in self._views:
            view = self.get("bufferView", self.told.bufferViews, i)
            packed = next((view.extensions[name] for name in MESHOPT if name in view.extensions), None)
            if packed is not None:
                place = f"{self.where}: bufferViews[{i}]"
                self._views[i] = self._unpacked(from_values(_Meshopt, packed, place, others=True), place)
            else:
                self._views[i] = self._stretch(view.buffer, view.byteOffset, view.byteLength, f"bufferView {i}")
        return self._views[i]

    def values(self, i: int) -> Shaped[ndarray, "element number"]:
        """Return the numbers of an array; integers that stand for 0…1 or −1…1 as those.

        Raises:
            InputError: it is not there, or longer than its stretch.
        """
        accessor = self.get("accessor", self.told.accessors, i)
        numbers = NUMBERS.get(accessor.type)
        if numbers is None:
            raise InputError(f"{self.where}: accessors[{i}].type cannot be {accessor.type!r:.40}")
        found = self._plain(accessor, numbers, i)
        if accessor.sparse is not None:
            found = self._replaced(found, accessor, numbers, i)
        if accessor.normalized and found.dtype.kind in "iu":
            return np.maximum(found / np.iinfo(found.dtype).max, -1.0)
        return found

    def draco(self, primitive: Primitive) -> tuple[Int[ndarray, "face 3"], dict[str, ndarray]] | None:
        """Return the triangles and attributes of a primitive that Draco packed; None where it did not.

        Where the library is missing and the file has them plain too, that is taken.

        Raises:
            InputError: the library is missing, or what it is given is damaged.
        """
        if DRACO not in primitive.extensions:
            return None
        told = from_values(_Draco, primitive.extensions[DRACO], f"{self.where}: {DRACO}", others=True)
        try:
            import DracoPy
        except ImportError:
            plain = [self.get("accessor", self.told.accessors, a) for a in primitive.attributes.values()]
            if plain and all(accessor.bufferView is not None for accessor in plain):
                return None
            raise InputError(
                f"{self.where} is packed by Draco ({DRACO}), which takes a library: pip install DracoPy"
            ) from None
        try:
            mesh = DracoPy.decode(self.view(told.bufferView))
            found = {item["unique_id"]: np.asarray(item["data"]) for item in mesh.attributes}
            faces = np.asarray(mesh.faces, np.int64).reshape(-1, 3)
        except InputError:
            raise
        except Exception as error:  # whatever the library's wrapper raises
            raise InputError(f"{self.where}: what Draco packed is damaged ({first_line(error)[:200]})") from error
        if missing := [name for name, number in told.attributes.items() if number not in found]:
            raise InputError(f"{self.where}: what Draco packed lacks {missing[0]}")
        values = {name: found[number].reshape(len(found[number]), -1) for name, number in told.attributes.items()}
        for name, array in values.items():  # Draco keeps the integers, and the accessor says what they stand for
            accessor = self.get("accessor", self.told.accessors, primitive.attributes.get(name, 0))
            if name in primitive.attributes and accessor.normalized and array.dtype.kind in "iu":
                values[name] = np.maximum(array / np.iinfo(array.dtype).max, -1.0)
        # An attribute may be left out of the packing.
        rest = {name: self.values(i) for name, i in primitive.attributes.items() if name not in values}
        return faces, {**values, **rest}

    def _plain(self, accessor: Accessor, numbers: int, i: int) -> ndarray:
        kind = np.dtype(_TYPES[accessor.componentType])
        if accessor.bufferView is None or not accessor.count:
            return np.zeros((accessor.count, numbers), kind)
        data, own = self.view(accessor.bufferView), kind.itemsize * numbers
        stride = self.told.bufferViews[accessor.bufferView].byteStride or own
        needed = accessor.byteOffset + stride * (accessor.count - 1) + own
        if needed > len(data):
            raise InputError(f"{self.where}: accessor {i} reads {needed:,} bytes of the {len(data):,} that are there")
        shape, strides = (accessor.count, numbers), (stride, kind.itemsize)
        return np.ndarray(shape, kind, data, accessor.byteOffset, strides)

    def _replaced(self, found: ndarray, accessor: Accessor, numbers: int, i: int) -> ndarray:
        sparse = accessor.sparse
        assert sparse is not None
        at = self._plain(
            Accessor(sparse.count, "SCALAR", sparse.indices.componentType, sparse.indices.bufferView,
                     sparse.indices.byteOffset), 1, i,
        )[:, 0]  # fmt: skip
        if len(at) and at.max() >= accessor.count:
            raise InputError(f"{self.where}: accessor {i} replaces element {at.max()} of {accessor.count}")
        new = Accessor(sparse.count, accessor.type, accessor.componentType, sparse.values.bufferView,
                       sparse.values.byteOffset)  # fmt: skip
        changed = found.copy()
        changed[at] = self._plain(new, numbers, i)
        return changed

    def _stretch(self, buffer: int, start: int, length: int, what: str) -> bytes:
        data = self.buffer(buffer)
        if start + length > len(data):
            raise InputError(
                f"{self.where}: {what} ends at byte {start + length:,} of buffer {buffer}, which has {len(data):,}"
            )
        return data[start : start + length]

    def buffer(self, i: int) -> bytes:
        """Return a buffer's bytes.

        Raises:
            InputError: there is none, or the data within its address are damaged.
            FileNotFoundError: its file is not there.
        """
        if i not in self._buffers:
            uri = self.get("buffer", self.told.buffers, i).uri
            self._buffers[i] = self._rest if uri is None else self.content(uri)
        return self._buffers[i]

    def content(self, uri: str) -> bytes:
        """Return what an address stands for: data within it, or a file beside the mesh.

        Raises:
            InputError: the data within it are damaged.
            FileNotFoundError: there is no such file.
        """
        if not uri.startswith("data:"):
            try:
                return self._beside(unquote(uri))
            except FileNotFoundError:
                return self._beside(uri)
        head, _, data = uri.partition(",")
        try:
            # Browsers do without the padding at the end.
            return base64.b64decode(unquote(data) + "==") if head.endswith(";base64") else unquote_to_bytes(data)
        except (binascii.Error, ValueError) as error:
            raise InputError(f"{self.where}: the data within an address are damaged ({error})") from error

    def _unpacked(self, told: _Meshopt, place: str) -> bytes:
        try:
            import meshoptimizer
        except ImportError:
            words = "is packed by meshopt (EXT_meshopt_compression), which takes a library: pip install meshoptimizer"
            raise InputError(f"{self.where} {words}") from None
        data = self._stretch(told.buffer, told.byteOffset, told.byteLength, place)
        try:
            if told.mode == "ATTRIBUTES":
                kind = np.dtype(f"V{told.byteStride}")
                found = meshoptimizer.decode_vertex_buffer(told.count, told.byteStride, data, dtype=kind)
                filters = {"OCTAHEDRAL": "oct", "QUATERNION": "quat", "EXPONENTIAL": "exp"}
                if told.filter in filters:
                    decode = getattr(meshoptimizer, f"decode_filter_{filters[told.filter]}")
                    found = decode(found, told.count, told.byteStride)
                return np.asarray(found).tobytes()
            read = {"TRIANGLES": meshoptimizer.decode_index_buffer, "INDICES": meshoptimizer.decode_index_sequence}
            numbers = read[told.mode](told.count, 4, data)
            return np.asarray(numbers).astype(f"<u{told.byteStride}").tobytes()
        except Exception as error:  # whatever the library's wrapper raises
            raise InputError(f"{place}: what meshopt packed is damaged ({first_line(error)[:200]})") from error
