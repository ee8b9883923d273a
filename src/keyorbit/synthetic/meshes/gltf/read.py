"""A glTF file as parts: what its scene shows, as its nodes stand."""

import logging
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from keyorbit.errors import InputError
from keyorbit.synthetic.meshes.gltf.arrays import DRACO, MESHOPT, Arrays
from keyorbit.synthetic.meshes.gltf.budget import check_declared
from keyorbit.synthetic.meshes.gltf.document import Gltf, Primitive, document_of
from keyorbit.synthetic.meshes.gltf.looks import Look, Looks
from keyorbit.synthetic.meshes.gltf.pose import all_matrices, copies_of, formed, placed_nodes, skinned
from keyorbit.synthetic.meshes.parts import Part, check_count, check_part

log = logging.getLogger(__name__)

# What a file may require of its reader and get here; the rest of KHR_materials_ and the lights change no base colour.
_KNOWN = (
    *(DRACO, *MESHOPT, "KHR_mesh_quantization", "KHR_texture_transform", "KHR_texture_basisu", "EXT_texture_webp"),
    *("EXT_texture_avif", "MSFT_texture_dds", "EXT_mesh_gpu_instancing", "KHR_node_visibility"),
    *("KHR_lights_punctual", "KHR_animation_pointer", "KHR_xmp_json_ld", "KHR_xmp", "MSFT_lod", "EXT_lights_ies"),
    *("EXT_lights_image_based", "KHR_node_selectability", "KHR_node_hoverability", "KHR_interactivity"),
)
_TRIANGLES, _STRIP, _FAN = 4, 5, 6


def gltf_parts(content: bytes, beside: Callable[[str], bytes], where: str) -> list[Part]:
    """Return the parts of a glTF file in the world's axes, in which y is up.

    Skins and mixed forms are as the file's nodes have them; animations are not played.

    Args:
        content: the file's bytes, of a GLB or JSON.
        beside: gives the content of a file by its name.
        where: names the file in error messages.

    Raises:
        InputError: it is damaged, contradicts itself, or requires what is not read here.
    """
    told, rest = document_of(content, where)
    check_declared(told, where)
    _check_required(told, where)
    arrays = Arrays(told, rest, beside, where)
    for i in range(len(told.buffers)):  # one that is missing is told, whether it is drawn or not
        arrays.buffer(i)
    looks, matrices, parts = Looks(arrays), all_matrices(told), list[Part]()
    count, bare = 0, set[int]()
    for i, matrix in placed_nodes(arrays).items():
        node = told.nodes[i]
        if node.mesh is None:
            continue
        mesh = arrays.get("mesh", told.meshes, node.mesh)
        copies = copies_of(arrays, node, matrix)
        for primitive in mesh.primitives:
            if primitive.mode < _TRIANGLES:
                continue
            faces, attributes = _read(arrays, primitive)
            count += len(faces) * len(copies)
            check_count(count, where)
            vertices = formed(arrays, primitive, _positions(arrays, attributes), node.weights or mesh.weights)
            look = looks.get(primitive.material)
            part = _part(vertices, faces, attributes, look)
            if len(faces) and part.corner_uv is None and look.textured:
                bare.add(look.coordinates)
            check_part(part, where)
            if node.skin is not None and "JOINTS_0" in attributes and "WEIGHTS_0" in attributes:
                skin = arrays.get("skin", told.skins, node.skin)
                moved = skinned(arrays, skin, matrices, part.vertices, attributes)
                parts.append(_moved(part, moved, False))
                continue
            for own in copies:
                with np.errstate(all="ignore"):  # what overflows is found below
                    moved = part.vertices @ own[:3, :3].T + own[:3, 3]
                    parts.append(_moved(part, moved, bool(np.linalg.det(own[:3, :3]) < 0)))
    for part in parts:
        check_part(part, where)
    for number in sorted(bare):
        words = "%s has a texture on triangles without its coordinates, TEXCOORD_%d: they are drawn without it"
        log.warning(words, where, number)
    return parts


def _check_required(told: Gltf, where: str) -> None:
    unknown = [x for x in told.extensionsRequired if x not in _KNOWN and not x.startswith("KHR_materials_")]
    if unknown:
        raise InputError(f"{where} requires {', '.join(unknown)[:200]}, which is not read here: save it without")


def _moved(part: Part, vertices: Float[ndarray, "vertex 3"], mirrored: bool) -> Part:
    """Return the part in another place; where that mirrors it, its faces go round the other way."""
    if not mirrored:
        return Part(vertices, part.faces, part.material, part.corner_uv, part.corner_colors)
    uv, colors = (x if x is None else x[:, ::-1] for x in (part.corner_uv, part.corner_colors))
    return Part(vertices, part.faces[:, ::-1], part.material, uv, colors)


def _positions(arrays: Arrays, attributes: dict[str, ndarray]) -> Float[ndarray, "vertex 3"]:
    if "POSITION" not in attributes:
        raise InputError(f"{arrays.where} has triangles without POSITION")
    found = attributes["POSITION"].astype(float)
    if found.shape[1] != 3:
        raise InputError(f"{arrays.where} has a POSITION of {found.shape[1]} numbers; it must have 3")
    return found


def _read(arrays: Arrays, primitive: Primitive) -> tuple[Int[ndarray, "face 3"], dict[str, ndarray]]:
    """Return a primitive's triangles and attributes."""
    if unpacked := arrays.draco(primitive):
        return unpacked
    attributes = {name: arrays.values(i) for name, i in primitive.attributes.items() if not name.startswith("_")}
    if primitive.indices is None:
        order = np.arange(len(attributes.get("POSITION", ())))
    else:
        order = arrays.values(primitive.indices)[:, 0]
        if order.dtype.kind not in "iu":
            raise InputError(f"{arrays.where}: indices must be whole numbers; accessor {primitive.indices} has others")
    return _triangles(order.astype(np.int64), primitive.mode), attributes


def _triangles(order: Int[ndarray, " corner"], mode: int) -> Int[ndarray, "face 3"]:
    """Return the triangles of a list, a strip or a fan."""
    if mode == _TRIANGLES:
        return order[: len(order) // 3 * 3].reshape(-1, 3)
    if len(order) < 3:
        return np.zeros((0, 3), np.int64)
    if mode == _FAN:
        return np.stack([np.full(len(order) - 2, order[0]), order[1:-1], order[2:]], axis=1)
    found = np.stack([order[:-2], order[1:-1], order[2:]], axis=1)
    found[1::2] = found[1::2, ::-1]
    return found


def _part(
    vertices: Float[ndarray, "vertex 3"], faces: Int[ndarray, "face 3"], attributes: dict[str, ndarray], look: Look
) -> Part:
    safe = np.clip(faces, 0, max(len(vertices) - 1, 0))  # what is no vertex is found afterwards
    material, uv, colors = look.material, None, None
    laid = attributes.get(f"TEXCOORD_{look.coordinates}", np.zeros((0, 2)))
    if len(vertices) and len(laid) == len(vertices) and laid.shape[1] == 2:
        flat = laid.astype(float) @ look.matrix[:, :2].T + look.matrix[:, 2]
        uv = (flat * (1, -1) + (0, 1)).astype(np.float32)[safe] if look.textured else None
    elif look.textured:
        material = replace(material, texture=None, glow_texture=None)
    given = attributes.get("COLOR_0", np.zeros((0, 4)))
    if len(vertices) and len(given) == len(vertices) and given.shape[1] in (3, 4):
        if given.dtype.kind in "iu":  # exporters forget to say that they stand for 0…1
            given = given / np.iinfo(given.dtype).max
        colors = np.ones((len(given), 4), np.float32)
        colors[:, : given.shape[1]] = given
        colors = colors[safe]
    return Part(vertices, faces, material, uv, colors)
