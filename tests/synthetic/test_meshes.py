"""Meshes from files: textures and materials as they are."""

import numpy as np
import pytest
import trimesh
from PIL import Image

from keyorbit.errors import InputError
from keyorbit.objects.dataset import load_dataset
from keyorbit.synthetic.mesh_files import read_mesh
from keyorbit.synthetic.mesh_objects import render_mesh
from keyorbit.synthetic.mesh_surface import PLAIN, load_mesh


def test_a_meshs_texture_of_sixteen_bits_is_not_white(tmp_path):
    plane = trimesh.Trimesh([[0, 0, 0], [1, 0, 0], [0, 1, 0]], [[0, 1, 2]], process=False)
    deep = Image.fromarray(np.full((8, 8), 32768, np.uint16))
    material = trimesh.visual.material.PBRMaterial(baseColorTexture=deep)
    plane.visual = trimesh.visual.TextureVisuals([[0, 0], [1, 0], [0, 1]], material=material)
    plane.export(tmp_path / "a.glb")
    assert np.unique(load_mesh(tmp_path / "a.glb").surface.look.materials[0].texture[..., :3]).tolist() == [128]


def test_a_textured_mesh_keeps_its_colours(tmp_path):
    mesh = trimesh.creation.box((1, 1, 1))
    image = Image.new("RGB", (8, 8), (200, 40, 40))
    mesh.visual = trimesh.visual.TextureVisuals(uv=np.random.default_rng(0).random((8, 2)), image=image)
    mesh.export(tmp_path / "box.glb")
    render_mesh(tmp_path / "box.glb", tmp_path / "object", size=32, elevation_deg=30.0)
    thing = load_dataset(tmp_path / "object")[0]
    assert thing.views.shape == (6, 3, 32, 32)
    red, green, blue = thing.views[0, :, 16, 16]
    assert red > 2 * green
    assert red > 2 * blue
    assert thing.truth is None


def test_unusable_meshes_are_named(tmp_path):
    (tmp_path / "text.obj").write_text("nothing here")
    (tmp_path / "cut.glb").write_bytes(b"glTF")
    for name in ("missing.obj", "text.obj", "cut.glb"):
        with pytest.raises(InputError, match=name):
            render_mesh(tmp_path / name, tmp_path / "out")
    assert not (tmp_path / "out").exists()


MATERIALS = {
    "none": ("", (PLAIN, PLAIN, PLAIN)),
    "colour": ("newmtl m\nKd 1.0 0.0 0.0\n", (1.0, 0.0, 0.0)),
    "missing texture": ("newmtl m\nKd 1.0 0.0 0.0\nmap_Kd nowhere.png\n", (1.0, 0.0, 0.0)),
}


@pytest.mark.parametrize("kind", MATERIALS)
def test_a_mesh_without_texture_coordinates_has_its_materials_colour(kind, tmp_path):
    text, color = MATERIALS[kind]
    (tmp_path / "m.mtl").write_text(text)
    (tmp_path / "m.obj").write_text("mtllib m.mtl\nusemtl m\nv 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\nf 1 2 3\nf 1 2 4\n")
    surface = load_mesh(tmp_path / "m.obj").surface
    assert surface.face_colors.shape == (2, 3)
    np.testing.assert_allclose(surface.face_colors, np.tile(color, (2, 1)), atol=0.01)


def test_an_obj_counts_its_vertices_from_one(tmp_path):
    (tmp_path / "zero.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\nf 1 2 3\nf 0/1 1 2\n")
    with pytest.raises(InputError, match=r"zero\.obj, line 6: a face has vertex 0"):
        read_mesh(tmp_path / "zero.obj")


def test_a_mesh_that_cannot_be_read_says_why(tmp_path):
    (tmp_path / "away.gltf").write_text(
        '{"asset": {"version": "2.0"}, "buffers": [{"uri": "http://a/x", "byteLength": 4}]}'
    )
    (tmp_path / "what.fbx").write_text("Kaydara")
    for name, words in {
        "away.gltf": "names 'http://a/x', which has to lie in its folder",
        "what.fbx": "suffixes .glb",
    }.items():
        with pytest.raises(InputError, match=words):
            read_mesh(tmp_path / name)
