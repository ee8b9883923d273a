"""glTF: colours, poses, and what is packed or damaged, each against numbers that follow from the format."""

import io
import json
import sys

import numpy as np
import pytest
from PIL import Image

from helpers.gltf import SQUARE, SQUARE_UV, TWO, Gltf
from keyorbit.errors import InputError
from keyorbit.geometry.cameras import orbit_cameras
from keyorbit.synthetic.meshes.files import read_mesh
from keyorbit.synthetic.meshes.surface import load_mesh
from keyorbit.synthetic.render import Light, render

FRONT = orbit_cameras([0.0], [0.0])
EVEN = Light(ambient=1.0, diffuse=0.0)
# Linear light of sRGB 85, 75, 60.
BROWN = (0.0908417, 0.0704196, 0.0451862)


def picture(file, tmp_path, size=16):
    """What is seen from the front, without shading."""
    surface = load_mesh(file.write(tmp_path / "a.glb")).surface
    return render(surface, FRONT, size, EVEN)[0].astype(int)


def middle(file, tmp_path):
    return picture(file, tmp_path)[8, 8].tolist()


def png(rows):
    out = io.BytesIO()
    Image.fromarray(np.array(rows, np.uint8)).save(out, "PNG")
    return out.getvalue()


def corners(file, tmp_path):
    """Left, right, lower, upper and far end of what is read, in the file's axes."""
    parts = read_mesh(file.write(tmp_path / "a.glb")).parts
    vertices = np.concatenate([part.vertices[part.faces].reshape(-1, 3) for part in parts])
    return vertices.min(0).round(4).tolist(), vertices.max(0).round(4).tolist()


def test_factors_are_linear_and_pictures_srgb(tmp_path):
    file = Gltf()
    file.shown(material=file.material((*BROWN, 1)))
    assert middle(file, tmp_path) == [85, 75, 60, 255]


def test_a_texture_is_multiplied_as_light(tmp_path):
    file = Gltf()
    look = file.texture(png(np.full((2, 2, 3), 188)))  # half of the light
    file.told["materials"][look]["pbrMetallicRoughness"]["baseColorFactor"] = [0.5, 1, 0, 1]
    file.shown(material=look, TEXCOORD_0=file.array(SQUARE_UV))
    assert middle(file, tmp_path) == [137, 188, 0, 255]  # a quarter of the light, and a half


def test_its_own_light_is_added(tmp_path):
    file = Gltf()
    look = file.texture(png([[[255, 0, 0], [0, 255, 0]]] * 2))
    use = file.told["materials"][look]["pbrMetallicRoughness"].pop("baseColorTexture")
    file.told["materials"][look] |= {"emissiveFactor": [0.5, 0.5, 0.5], "emissiveTexture": use}
    file.told["materials"][look]["pbrMetallicRoughness"]["baseColorFactor"] = [0, 0, 1, 1]
    file.shown(material=look, TEXCOORD_0=file.array(SQUARE_UV))
    seen = render(load_mesh(file.write(tmp_path / "a.glb")).surface, FRONT, 16, Light(ambient=0.5, diffuse=0.0))[0, 8]
    np.testing.assert_allclose([seen[i] for i in (5, 10)], [[188, 0, 128, 255], [0, 188, 128, 255]], atol=1)


@pytest.mark.parametrize("kind", ["f4", "u1", "u2", "forgotten"])
def test_colours_of_vertices_are_linear(kind, tmp_path):
    light = np.tile(np.array(BROWN), (4, 1))
    most = {"f4": 1, "u1": 255, "u2": 65535, "forgotten": 65535}[kind]
    values = (light * most if kind == "f4" else (light * most).round()).astype("u2" if kind == "forgotten" else kind)
    file = Gltf()
    file.shown(material=file.material(), COLOR_0=file.array(values, normalized=kind != "forgotten" and kind != "f4"))
    np.testing.assert_allclose(middle(file, tmp_path), [85, 75, 60, 255], atol=2)


@pytest.mark.parametrize(
    ("mode", "alpha", "seen"),
    [
        ({}, 0.2, [255, 0, 0, 255]),
        ({"alphaMode": "MASK"}, 0.49, [0, 0, 255, 255]),
        ({"alphaMode": "MASK"}, 0.51, [255, 0, 0, 255]),
        ({"alphaMode": "MASK", "alphaCutoff": 0.3}, 0.4, [255, 0, 0, 255]),
        ({"alphaMode": "BLEND"}, 0.4, [102, 0, 153, 255]),
    ],
)
def test_what_lies_behind_is_seen_as_alpha_tells(mode, alpha, seen, tmp_path):
    file = Gltf()
    file.shown(material=file.material((1, 0, 0, alpha), **mode))
    file.shown(vertices=SQUARE - np.array([0, 0, 0.5], "f4"), material=file.material((0, 0, 1, 1)))
    np.testing.assert_allclose(middle(file, tmp_path), seen, atol=1)


def test_glass_has_a_silhouette(tmp_path):
    file = Gltf()
    file.shown(material=file.material((1, 0, 0, 0.2), alphaMode="BLEND"))
    np.testing.assert_allclose(middle(file, tmp_path), [255, 0, 0, 130], atol=1)


@pytest.mark.parametrize("mode", ["MASK", "BLEND"])
def test_what_cannot_be_seen_at_all_is_an_error(mode, tmp_path):
    from keyorbit.synthetic.dataset import render_mesh

    file = Gltf()
    file.shown(material=file.material((1, 0, 0, 0), alphaMode=mode))
    with pytest.raises(InputError, match=r"nothing of .*a\.glb can be seen"):
        render_mesh(file.write(tmp_path / "a.glb"), tmp_path / "out", 16)
    assert not (tmp_path / "out").exists()


def test_every_material_keeps_its_texture(tmp_path):
    file = Gltf()
    looks = [file.texture(png(np.full((2, 2, 3), color))) for color in ((255, 0, 0), (0, 0, 255))]
    looks.append(file.material((0, 1, 0, 1)))
    for i, look in enumerate(looks):
        moved = SQUARE / 2 + np.array([i - 1, 0, 0], "f4")
        file.shown(vertices=moved, material=look, TEXCOORD_0=file.array(SQUARE_UV))
    seen = picture(file, tmp_path, 30)[15]
    assert [seen[i].tolist() for i in (8, 15, 22)] == [[255, 0, 0, 255], [0, 0, 255, 255], [0, 255, 0, 255]]


@pytest.mark.parametrize(
    ("wrap", "offset", "scale", "seen"),
    [
        (None, 0.0, 1, "red blue"),
        (None, 0.5, 1, "blue red"),
        (33071, 0.9, 1, "blue blue"),
        (33648, 1.0, 1, "blue red"),
        (None, 0.0, 0.2, "red red"),
    ],
)
def test_a_texture_goes_on_as_its_sampler_tells(wrap, offset, scale, seen, tmp_path):
    file = Gltf()
    look = file.texture(png([[[255, 0, 0], [0, 0, 255]]] * 2), wrap)
    use = file.told["materials"][look]["pbrMetallicRoughness"]["baseColorTexture"]
    use["extensions"] = {"KHR_texture_transform": {"offset": [offset, 0], "scale": [scale, 1]}}
    file.shown(material=look, TEXCOORD_0=file.array(SQUARE_UV))
    row = picture(file, tmp_path)[8]
    there = np.flatnonzero(row[:, 3])
    names = {(255, 0, 0): "red", (0, 0, 255): "blue"}
    assert " ".join(names[tuple(row[i, :3])] for i in there[[1, -2]]) == seen


def test_a_texture_is_turned_as_in_the_extensions_own_example(tmp_path):
    """It says: the lower left quarter of the picture, rotated by 90° clockwise."""
    rows = np.zeros((4, 4, 3))
    rows[2:, :2, 2] = 255
    rows[2:, 0, 0] = 255  # the quarter's left column is purple, its right one blue
    file = Gltf()
    look = file.texture(png(rows))
    use = file.told["materials"][look]["pbrMetallicRoughness"]["baseColorTexture"]
    told = {"offset": [0, 1], "rotation": np.pi / 2, "scale": [0.5, 0.5]}
    use["extensions"] = {"KHR_texture_transform": told}
    file.shown(material=look, TEXCOORD_0=file.array(SQUARE_UV))
    seen = picture(file, tmp_path)
    there = np.flatnonzero(seen[:, 8, 3])
    assert [seen[i, 8].tolist() for i in there[[1, -2]]] == [[255, 0, 255, 255], [0, 0, 255, 255]]


def test_nodes_stand_where_their_parents_put_them(tmp_path):
    file = Gltf()
    child = file.shown()
    file.told["nodes"][child] |= {"translation": [1, 0, 0]}
    turned = {"rotation": [0, 0, np.sqrt(0.5), np.sqrt(0.5)], "scale": [2, 2, 2]}
    file.node(children=[child], **turned)  # the left becomes the lower
    assert corners(file, tmp_path) == ([-2, 0, 0], [2, 4, 0])


def test_only_the_files_scene_is_shown(tmp_path):
    file = Gltf()
    shown = file.shown()
    file.shown(vertices=SQUARE * 9)
    file.told |= {"scenes": [{"nodes": []}, {"nodes": [shown]}], "scene": 1}
    assert corners(file, tmp_path) == ([-1, -1, 0], [1, 1, 0])


def test_a_mirrored_node_faces_the_same_side(tmp_path):
    file = Gltf()
    node = file.shown()
    file.told["nodes"][node]["scale"] = [-1, 1, 1]
    mesh = load_mesh(file.write(tmp_path / "a.glb")).surface.mesh
    np.testing.assert_allclose(mesh.face_normals, [[1, 0, 0]] * 2)


def test_faces_inside_out_are_shaded_alike(tmp_path):
    seen = []
    for faces in (TWO, TWO[::-1].copy()):
        file = Gltf()
        file.shown(indices=faces, material=file.material((*BROWN, 1)))
        surface = load_mesh(file.write(tmp_path / "a.glb")).surface
        seen.append(render(surface, orbit_cameras([0.0, 180.0], [10.0, 10.0]), 16))
    np.testing.assert_array_equal(*seen)


def test_instances_are_drawn_each(tmp_path):
    file = Gltf()
    places, sizes = (file.array(np.array(x, "f4")) for x in ([[0, 0, 0], [5, 0, 0]], [[1, 1, 1], [2, 2, 2]]))
    node = file.shown()
    told = {"attributes": {"TRANSLATION": places, "SCALE": sizes}}
    file.told["nodes"][node]["extensions"] = {"EXT_mesh_gpu_instancing": told}
    file.told["extensionsRequired"] = ["EXT_mesh_gpu_instancing"]
    assert corners(file, tmp_path) == ([-1, -2, 0], [7, 2, 0])


def skinned(sets=1):
    """A square whose left half is bound to one node and whose right half to another, that stands 3 further right."""
    file = Gltf()
    matrices = np.tile(np.eye(4, dtype="f4"), (2, 1, 1))
    matrices[1, 3, 0] = -1  # column by column: the second node stood at x = 1 when it was bound
    joints, weights = np.zeros((4, 4 * sets), "u1"), np.zeros((4, 4 * sets), "f4")
    joints[:, -1], weights[[0, 3], 0], weights[[1, 2], -1] = 1, 1, 2  # a sum that is not one
    told = {f"JOINTS_{i}": file.array(joints[:, 4 * i : 4 * i + 4]) for i in range(sets)}
    told |= {f"WEIGHTS_{i}": file.array(weights[:, 4 * i : 4 * i + 4]) for i in range(sets)}
    mesh = file.mesh(**told)
    first, second = file.node(), file.node(translation=[4, 0, 0])
    # A skin's own node does not move it.
    file.node(mesh=mesh, skin=0, translation=[50, 0, 0])
    file.told["skins"] = [{"joints": [first, second], "inverseBindMatrices": file.array(matrices)}]
    return file


@pytest.mark.parametrize("sets", [1, 2])
def test_a_skin_is_drawn_as_its_nodes_stand(sets, tmp_path):
    assert corners(skinned(sets), tmp_path) == ([-1, -1, 0], [4, 1, 0])


def test_other_forms_are_mixed_in_by_their_weights(tmp_path):
    file = Gltf()
    node = file.shown()
    file.told["meshes"][0]["primitives"][0]["targets"] = [{"POSITION": file.array(SQUARE)}] * 2
    file.told["meshes"][0]["weights"] = [0.5, 0.0]
    assert corners(file, tmp_path) == ([-1.5, -1.5, 0], [1.5, 1.5, 0])
    file.told["nodes"][node]["weights"] = [0.0, 2.0]
    assert corners(file, tmp_path) == ([-3, -3, 0], [3, 3, 0])


@pytest.mark.parametrize(("mode", "order"), [(5, [0, 1, 3, 2]), (6, [0, 1, 2, 3]), (4, None)])
def test_strips_and_fans_are_triangles(mode, order, tmp_path):
    file = Gltf()
    vertices = SQUARE if order else SQUARE[TWO]
    file.shown(vertices=vertices, indices=None if order is None else np.array(order, "u2"), mode=mode)
    (part,) = read_mesh(file.write(tmp_path / "a.glb")).parts
    normals = np.cross(*(part.vertices[part.faces[:, i]] - part.vertices[part.faces[:, 0]] for i in (1, 2)))
    np.testing.assert_allclose(normals, [[0, 0, 4]] * 2)


def test_sparse_quantised_and_strided_arrays_are_read(tmp_path):
    file = Gltf()
    small = np.zeros((4, 4), "i2")  # three numbers and two bytes of padding
    small[:, :3] = (SQUARE / 2 * 32767).round()
    file.told["accessors"].append(
        {"bufferView": file.view(small.tobytes(), byteStride=8), "count": 4, "type": "VEC3", "componentType": 5122}
        | {"normalized": True}
    )
    file.told["accessors"][0]["sparse"] = {
        "count": 1,
        "indices": {"bufferView": file.view(np.array([2], "u1").tobytes()), "componentType": 5121},
        "values": {"bufferView": file.view(np.array([32767, 32767, 0], "i2").tobytes())},
    }
    file.told["meshes"] = [{"primitives": [{"attributes": {"POSITION": 0}, "indices": file.array(TWO)}]}]
    file.node(mesh=0)
    file.told["extensionsRequired"] = ["KHR_mesh_quantization"]
    assert corners(file, tmp_path) == ([-0.5, -0.5, 0], [1, 1, 0])


def test_files_beside_are_found_by_their_address(tmp_path):
    file = Gltf()
    file.shown(material=file.texture(b""), TEXCOORD_0=file.array(SQUARE_UV))
    (tmp_path / "my data.bin").write_bytes(file.data)
    (tmp_path / "tex").mkdir()
    (tmp_path / "tex" / "ü 1.png").write_bytes(png(np.full((2, 2, 3), (0, 0, 255))))
    told = file.told | {"buffers": [{"uri": "my%20data.bin", "byteLength": len(file.data)}]}
    told["images"] = [{"uri": "tex/%C3%BC%201.png"}]
    (tmp_path / "a.gltf").write_text(json.dumps(told))
    surface = load_mesh(tmp_path / "a.gltf").surface
    assert render(surface, FRONT, 16, EVEN)[0, 8, 8].tolist() == [0, 0, 255, 255]


def packed(encode):
    """A square whose triangles are packed; its arrays are not there otherwise."""
    file = Gltf()
    view = file.view(encode)
    told = {"KHR_draco_mesh_compression": {"bufferView": view, "attributes": {"POSITION": 0}}}
    file.told["accessors"] = [
        {"count": 4, "type": "VEC3", "componentType": 5126},
        {"count": 6, "type": "SCALAR", "componentType": 5123},
    ]
    file.told["meshes"] = [{"primitives": [{"attributes": {"POSITION": 0}, "indices": 1, "extensions": told}]}]
    file.node(mesh=0)
    file.told["extensionsRequired"] = ["KHR_draco_mesh_compression"]
    return file


def test_draco_is_unpacked(tmp_path):
    draco = pytest.importorskip("DracoPy")
    lower, upper = corners(packed(draco.encode(SQUARE, TWO.reshape(2, 3).astype(np.uint32))), tmp_path)
    np.testing.assert_allclose([lower, upper], [[-1, -1, 0], [1, 1, 0]], atol=1e-3)
    with pytest.raises(InputError, match=r"a\.glb: what Draco packed is damaged"):
        corners(packed(b"DRACO nothing"), tmp_path)


def test_what_takes_a_library_that_is_missing_names_it(tmp_path, monkeypatch):
    for name in ("DracoPy", "meshoptimizer"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InputError, match=r"KHR_draco_mesh_compression.*pip install DracoPy"):
        corners(packed(b"DRACO"), tmp_path)
    file = Gltf()
    file.shown()
    file.told["bufferViews"][0]["extensions"] = {
        "EXT_meshopt_compression": {"buffer": 0, "byteLength": 4, "byteStride": 12, "count": 4, "mode": "ATTRIBUTES"}
    }
    with pytest.raises(InputError, match=r"EXT_meshopt_compression.*pip install meshoptimizer"):
        corners(file, tmp_path)


def test_meshopt_is_unpacked(tmp_path):
    meshopt = pytest.importorskip("meshoptimizer")
    file = Gltf()
    file.shown()
    codes = [
        (meshopt.encode_vertex_buffer(SQUARE, 4, 12), 12, 4, "ATTRIBUTES"),
        (meshopt.encode_index_buffer(TWO.astype(np.uint32), 6, 4), 2, 6, "TRIANGLES"),
    ]
    for view, (code, stride, count, mode) in zip(list(file.told["bufferViews"]), codes, strict=True):
        place = file.told["bufferViews"][file.view(bytes(code))]
        told = {"buffer": 0, "byteOffset": place["byteOffset"], "byteLength": place["byteLength"]}
        told |= {"byteStride": stride, "count": count, "mode": mode}
        view |= {"buffer": 1, "extensions": {"EXT_meshopt_compression": told}}
    file.told["buffers"] = [{"byteLength": len(file.data)}, {"byteLength": 60}]
    file.told["extensionsRequired"] = ["EXT_meshopt_compression"]
    assert corners(file, tmp_path) == ([-1, -1, 0], [1, 1, 0])


def ktx(file):
    file.told["materials"] = [{"pbrMetallicRoughness": {"baseColorTexture": {"index": 0}}}]
    file.told["textures"] = [{"extensions": {"KHR_texture_basisu": {"source": 0}}}]
    file.told["images"] = [{"bufferView": file.view(b"\xabKTX 20\xbb\r\n\x1a\n" + bytes(20))}]
    file.told["meshes"][0]["primitives"][0] |= {"material": 0}
    file.told["meshes"][0]["primitives"][0]["attributes"]["TEXCOORD_0"] = file.array(SQUARE_UV)
    file.told["extensionsRequired"] = ["KHR_texture_basisu"]


def far(file):
    file.told["meshes"][0]["primitives"][0]["indices"] = file.array(np.array([0, 1, 9], "u2"))


def changed(name, *path):
    """Sets an entry of the JSON."""

    def change(file):
        there = file.told
        for step in path:
            there = there[step]
        there.update(name)

    return change


BROKEN = {
    "index": (far, "face 0 has vertex 9; there are 4"),
    "ktx": (ktx, "KTX2 file"),
    "unknown": (changed({"extensionsRequired": ["ACME_voxels"]}), "requires ACME_voxels"),
    "asset": (changed({"asset": [], "meshes": 3}), "meshes cannot be 3; it must be a list"),
    "version": (changed({"asset": {"version": "1.0"}}), "glTF of version 1.0; save"),
    "too long": (changed({"count": 99}, "accessors", 0), "accessor 0 reads 1,188 bytes of the 48"),
    "no view": (changed({"bufferView": 9}, "accessors", 0), "names bufferView 9; there are 2"),
    "no array": (changed({"indices": 9}, "meshes", 0, "primitives", 0), "names accessor 9; there are 2"),
    "no material": (changed({"material": 3}, "meshes", 0, "primitives", 0), "names material 3; there are 0"),
    "no mesh": (changed({"mesh": 3}, "nodes", 0), "names mesh 3; there are 1"),
    "no child": (changed({"children": [7]}, "nodes", 0), "names node 7"),
    "no place": (changed({"attributes": {}}, "meshes", 0, "primitives", 0), "without POSITION"),
    "beyond": (changed({"byteOffset": 999}, "bufferViews", 0), "ends at byte 1,047 of buffer 0"),
    "type": (changed({"type": "VEC9"}, "accessors", 0), r"accessors\[0\].type cannot be 'VEC9'"),
    "component": (changed({"componentType": 5130}, "accessors", 0), r"accessors\[0\].componentType cannot be 5130"),
    "flat": (changed({"type": "VEC2"}, "accessors", 0), "POSITION of 2 numbers"),
    "points": (changed({"mode": 0}, "meshes", 0, "primitives", 0), "holds no triangles"),
    "lines": (changed({"mode": 1}, "meshes", 0, "primitives", 0), "holds no triangles"),
    "floats": (changed({"componentType": 5126, "count": 3}, "accessors", 1), "indices must be whole numbers"),
    "matrix": (changed({"matrix": [1, 2]}, "nodes", 0), r"nodes\[0\].matrix"),
    "scale": (changed({"scale": [1e300, 1e300, 1]}, "nodes", 0), "extent of inf"),
    "nothing": (changed({"scale": [0, 0, 0]}, "nodes", 0), "extent of 0"),
    "scene": (changed({"scenes": [{"nodes": [0]}], "scene": 4}), "names scene 4; there are 1"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_answered_by_one_sentence(name, tmp_path):
    change, words = BROKEN[name]
    file = Gltf()
    file.shown()
    change(file)
    with pytest.raises(InputError, match=words) as found:
        load_mesh(file.write(tmp_path / "a.glb"))
    assert "a.glb" in str(found.value)
    assert "\n" not in str(found.value)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.full((4, 3), np.inf, "f4"), "must be finite"),
        (np.full((4, 3), np.nan, "f4"), "must be finite"),
        (np.zeros((4, 3), "f4"), "extent of 0"),
    ],
)
def test_vertices_that_are_nowhere_are_named(values, words, tmp_path):
    file = Gltf()
    file.shown(vertices=values)
    with pytest.raises(InputError, match=words):
        load_mesh(file.write(tmp_path / "a.glb"))


def test_a_vertex_of_no_face_does_not_count(tmp_path):
    file = Gltf()
    file.shown(vertices=np.concatenate([SQUARE, [[0, 900, 0]]]).astype("f4"))
    corners_drawn = load_mesh(file.write(tmp_path / "a.glb")).surface.mesh.triangles.reshape(-1, 3)
    assert np.ptp(corners_drawn, axis=0).max() == pytest.approx(0.5**0.5)


def test_a_joint_that_is_not_there_is_named(tmp_path):
    file = skinned()
    file.told["skins"][0]["joints"] = [0]
    with pytest.raises(InputError, match="moved by joint 1; there are 1"):
        read_mesh(file.write(tmp_path / "a.glb"))
    file.told["accessors"][1]["count"] = 3
    with pytest.raises(InputError, match="joints and weights of a skin are not four for each vertex"):
        read_mesh(file.write(tmp_path / "a.glb"))
