"""The JSON of a glTF file, as the format's version 2.0 has it (https://registry.khronos.org/glTF/specs/2.0)."""

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from msgspec import Meta

from keyorbit.errors import InputError
from keyorbit.storage.content import json_in
from keyorbit.values import Amount, Finite, from_values

GLB, _JSON, _BIN = b"glTF", b"JSON", b"BIN\0"
_HEAD = 12
Pair = tuple[Finite, Finite]
Triple = tuple[Finite, Finite, Finite]
Four = tuple[Finite, Finite, Finite, Finite]
Matrix = Annotated[tuple[Finite, ...], Meta(min_length=16, max_length=16)]
Extensions = dict[str, Any]


@dataclass(frozen=True)
class Buffer:
    """Bytes: those of a file, of a ``data:`` address, or the second chunk of a GLB."""

    byteLength: Amount = 0
    uri: str | None = None


@dataclass(frozen=True)
class View:
    """A stretch of a buffer."""

    buffer: Amount = 0
    byteLength: Amount = 0
    byteOffset: Amount = 0
    byteStride: Amount = 0
    extensions: Extensions = field(default_factory=dict)


@dataclass(frozen=True)
class SparseIndices:
    """Which elements of an array are replaced."""

    bufferView: Amount
    componentType: Literal[5121, 5123, 5125]
    byteOffset: Amount = 0


@dataclass(frozen=True)
class SparseValues:
    """What they are replaced by."""

    bufferView: Amount
    byteOffset: Amount = 0


@dataclass(frozen=True)
class Sparse:
    """Elements of an array that are not those of its stretch."""

    count: Amount
    indices: SparseIndices
    values: SparseValues


@dataclass(frozen=True)
class Accessor:
    """An array in a stretch of a buffer; of zeros without one."""

    count: Amount
    type: str
    componentType: Literal[5120, 5121, 5122, 5123, 5125, 5126] = 5126
    bufferView: Amount | None = None
    byteOffset: Amount = 0
    normalized: bool = False
    sparse: Sparse | None = None


@dataclass(frozen=True)
class Primitive:
    """Points, lines or triangles of one material."""

    attributes: dict[str, Amount]
    indices: Amount | None = None
    material: Amount | None = None
    mode: Amount = 4
    targets: tuple[dict[str, Amount], ...] = ()
    extensions: Extensions = field(default_factory=dict)


@dataclass(frozen=True)
class Mesh:
    """Primitives that move together, and how far each of their other forms is mixed in."""

    primitives: tuple[Primitive, ...] = ()
    weights: tuple[Finite, ...] = ()


@dataclass(frozen=True)
class Node:
    """A place in the tree; a matrix, or a translation, a rotation (a quaternion, its real part last) and a scale."""

    mesh: Amount | None = None
    skin: Amount | None = None
    children: tuple[Amount, ...] = ()
    matrix: Matrix | None = None
    translation: Triple = (0.0, 0.0, 0.0)
    rotation: Four = (0.0, 0.0, 0.0, 1.0)
    scale: Triple = (1.0, 1.0, 1.0)
    weights: tuple[Finite, ...] = ()
    extensions: Extensions = field(default_factory=dict)


@dataclass(frozen=True)
class Skin:
    """Nodes that move vertices, and the matrices that bring vertices into those nodes' axes."""

    joints: tuple[Amount, ...] = ()
    inverseBindMatrices: Amount | None = None


@dataclass(frozen=True)
class Scene:
    """Nodes that are shown, with those below them."""

    nodes: tuple[Amount, ...] = ()


@dataclass(frozen=True)
class TextureUse:
    """A texture with the coordinates that it is laid on by."""

    index: Amount
    texCoord: Amount = 0
    extensions: Extensions = field(default_factory=dict)


@dataclass(frozen=True)
class Rough:
    """The colour of a surface; linear, not sRGB."""

    baseColorFactor: Four | None = None
    baseColorTexture: TextureUse | None = None


@dataclass(frozen=True)
class MaterialEntry:
    """What a surface looks like."""

    pbrMetallicRoughness: Rough = Rough()
    emissiveFactor: Triple = (0.0, 0.0, 0.0)
    emissiveTexture: TextureUse | None = None
    alphaMode: Literal["OPAQUE", "MASK", "BLEND"] = "OPAQUE"
    alphaCutoff: Finite = 0.5
    extensions: Extensions = field(default_factory=dict)


@dataclass(frozen=True)
class Texture:
    """A picture, and how it goes on beyond its borders."""

    sampler: Amount | None = None
    source: Amount | None = None
    extensions: Extensions = field(default_factory=dict)


@dataclass(frozen=True)
class Picture:
    """A picture's file, or its stretch of a buffer."""

    uri: str | None = None
    bufferView: Amount | None = None


@dataclass(frozen=True)
class Sampler:
    """How a picture goes on beyond its borders."""

    wrapS: Amount = 10497
    wrapT: Amount = 10497


@dataclass(frozen=True)
class Gltf:
    """All that is read of a glTF."""

    buffers: tuple[Buffer, ...] = ()
    bufferViews: tuple[View, ...] = ()
    accessors: tuple[Accessor, ...] = ()
    meshes: tuple[Mesh, ...] = ()
    nodes: tuple[Node, ...] = ()
    skins: tuple[Skin, ...] = ()
    scenes: tuple[Scene, ...] = ()
    scene: Amount | None = None
    materials: tuple[MaterialEntry, ...] = ()
    textures: tuple[Texture, ...] = ()
    images: tuple[Picture, ...] = ()
    samplers: tuple[Sampler, ...] = ()
    extensionsRequired: tuple[str, ...] = ()


def document_of(content: bytes, where: str) -> tuple[Gltf, bytes]:
    """Return a glTF's JSON, and the bytes that follow it in a GLB (none elsewhere).

    Raises:
        InputError: it is no glTF of version 2, or says of itself what the format does not have.
    """
    text, rest = _chunks(content, where) if content[:4] == GLB else (content, b"")
    if text.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] not in (b"{", b""):
        raise InputError(f"{where} is no glTF, whatever its suffix: it begins with {text[:8]!r}")
    values = json_in(text.decode("utf-8-sig", "replace"), where, infinite=True)  # bounds of empty arrays, unread here
    asset = values.get("asset") if isinstance(values, dict) else None
    if isinstance(asset, dict) and str(asset.get("version")).startswith(("0.", "1.")):
        raise InputError(f"{where} is a glTF of version {str(asset['version'])[:9]}; save it as version 2.0")
    return from_values(Gltf, values, where, others=True), rest


def _chunks(content: bytes, where: str) -> tuple[bytes, bytes]:
    if (version := int.from_bytes(content[4:8], "little")) != 2:
        raise InputError(f"{where} is a GLB of version {version} or cut; save it as version 2.0")
    found: dict[bytes, bytes] = {}
    at = _HEAD
    while at + 8 <= len(content):
        size, kind = int.from_bytes(content[at : at + 4], "little"), content[at + 4 : at + 8]
        if at + 8 + size > len(content):
            raise InputError(f"{where} is cut: it has {len(content):,} bytes of at least {at + 8 + size:,}")
        found.setdefault(kind, content[at + 8 : at + 8 + size])
        at += 8 + size
    if _JSON not in found:
        raise InputError(f"{where} is a GLB without its JSON, or cut")
    return found[_JSON], found.get(_BIN, b"")
