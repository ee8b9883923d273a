"""The materials and textures of a glTF."""

import io
import logging
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray
from PIL import Image

from keyorbit.errors import InputError, first_line
from keyorbit.objects.pictures import eight_bits
from keyorbit.synthetic.meshes.gltf.arrays import Arrays
from keyorbit.synthetic.meshes.gltf.document import Four, MaterialEntry, Pair, TextureUse
from keyorbit.synthetic.meshes.materials import Material, Wrap
from keyorbit.values import Amount, Finite, from_values

log = logging.getLogger(__name__)

_GLOSSY, _MOVED, _KTX = "KHR_materials_pbrSpecularGlossiness", "KHR_texture_transform", "KHR_texture_basisu"
# Other kinds of files, which Pillow reads.
_KINDS = ("EXT_texture_webp", "EXT_texture_avif", "MSFT_texture_dds")
_KTX_BEGINNING = b"\xabKTX"
_WRAPS: dict[int, Wrap] = {33071: "clamp", 33648: "mirror"}


@dataclass(frozen=True)
class _Glossy:
    diffuseFactor: Four = (1.0, 1.0, 1.0, 1.0)
    diffuseTexture: TextureUse | None = None


@dataclass(frozen=True)
class _Moved:
    offset: Pair = (0.0, 0.0)
    rotation: Finite = 0.0
    scale: Pair = (1.0, 1.0)
    texCoord: Amount | None = None


@dataclass(frozen=True)
class _Source:
    source: Amount | None = None


@dataclass(frozen=True)
class Look:
    """A material, and the texture coordinates that it takes.

    Attributes:
        material: what it looks like.
        coordinates: number of the set ``TEXCOORD_``.
        matrix: what the coordinates, with the origin at the top left, are multiplied by.
    """

    material: Material
    coordinates: int = 0
    matrix: Float[ndarray, "2 3"] = field(default_factory=lambda: np.eye(2, 3))

    @property
    def textured(self) -> bool:
        """Whether it needs texture coordinates."""
        return self.material.texture is not None or self.material.glow_texture is not None


class Looks:
    """The materials of one file, each read once.

    Attributes:
        missing: names of pictures that are not there; the materials are read without them.
    """

    def __init__(self, arrays: Arrays) -> None:
        self.arrays = arrays
        self._found: dict[int | None, Look] = {None: Look(Material(linear=True, stated=False))}
        self._pictures: dict[int, UInt8[ndarray, "height width 4"] | None] = {}

    def get(self, i: int | None) -> Look:
        """Return a material by its number; None is the format's own, which is white.

        Raises:
            InputError: there is none, or its texture cannot be read.
        """
        if i not in self._found:
            assert i is not None
            self._found[i] = self._read(self.arrays.get("material", self.arrays.told.materials, i))
        return self._found[i]

    def _read(self, entry: MaterialEntry) -> Look:
        rough = entry.pbrMetallicRoughness
        color, use = rough.baseColorFactor, rough.baseColorTexture
        if _GLOSSY in entry.extensions:
            glossy = from_values(_Glossy, entry.extensions[_GLOSSY], f"{self.arrays.where}: {_GLOSSY}", others=True)
            color, use = glossy.diffuseFactor, glossy.diffuseTexture
        glowing = entry.emissiveTexture if any(entry.emissiveFactor) else None
        texture, wrap = self._texture(use)
        glow, glow_wrap = self._texture(glowing)
        laid = use or glowing  # one set of coordinates for both
        coordinates, matrix = (0, np.eye(2, 3)) if laid is None else self._moved(laid)
        stated = color is not None or texture is not None or any(entry.emissiveFactor)
        material = Material(
            color or (1.0, 1.0, 1.0, 1.0),
            texture,
            glow_wrap if use is None else wrap,
            True,
            entry.alphaMode,
            entry.alphaCutoff,
            stated,
            entry.emissiveFactor,
            glow,
        )
        return Look(material, coordinates, matrix)

    def _moved(self, use: TextureUse) -> tuple[int, Float[ndarray, "2 3"]]:
        if _MOVED not in use.extensions:
            return use.texCoord, np.eye(2, 3)
        told = from_values(_Moved, use.extensions[_MOVED], f"{self.arrays.where}: {_MOVED}", others=True)
        cos, sin = np.cos(told.rotation), np.sin(told.rotation)
        turned = np.array([[cos, sin], [-sin, cos]]) * told.scale
        matrix = np.concatenate([turned, np.array(told.offset)[:, None]], axis=1)
        return use.texCoord if told.texCoord is None else told.texCoord, matrix

    def _texture(self, use: TextureUse | None) -> tuple[UInt8[ndarray, "height width 4"] | None, tuple[Wrap, Wrap]]:
        if use is None:
            return None, ("repeat", "repeat")
        arrays = self.arrays
        texture = arrays.get("texture", arrays.told.textures, use.index)
        sources = [texture.source]
        for name in (*_KINDS, _KTX):
            if name in texture.extensions:
                place = f"{arrays.where}: {name}"
                sources.append(from_values(_Source, texture.extensions[name], place, others=True).source)
        which = next((source for source in sources if source is not None), None)
        if which is None:
            log.warning("%s has texture %d without an image: the mesh is read without it", arrays.where, use.index)
        wrap: tuple[Wrap, Wrap] = ("repeat", "repeat")
        if texture.sampler is not None:
            sampler = arrays.get("sampler", arrays.told.samplers, texture.sampler)
            wrap = (_WRAPS.get(sampler.wrapS, "repeat"), _WRAPS.get(sampler.wrapT, "repeat"))
        return (None if which is None else self._picture(which)), wrap

    def _picture(self, i: int) -> UInt8[ndarray, "height width 4"] | None:
        if i not in self._pictures:
            arrays = self.arrays
            told = arrays.get("image", arrays.told.images, i)
            if told.uri is None and told.bufferView is None:
                log.warning("%s has image %d without a place of its data: the mesh is read without it", arrays.where, i)
                self._pictures[i] = None
                return None
            try:
                data = arrays.content(told.uri) if told.uri is not None else arrays.view(told.bufferView or 0)
            except FileNotFoundError:  # whoever reads the mesh tells it
                self._pictures[i] = None
                return None
            self._pictures[i] = self._decoded(data, f"the texture of {arrays.where} (image {i})")
        return self._pictures[i]

    def _decoded(self, data: bytes, name: str) -> UInt8[ndarray, "height width 4"]:
        if data.startswith(_KTX_BEGINNING):
            raise InputError(
                f"{name} is a KTX2 file ({_KTX}), which is not read here: save it with PNG or JPEG textures"
            )
        try:
            with Image.open(io.BytesIO(data)) as image:
                return np.asarray(eight_bits(image, name).convert("RGBA"))
        except InputError:
            raise
        except Exception as error:  # whatever Pillow's decoders raise
            raise InputError(f"{name} cannot be read: {first_line(error)[:200]}") from error
