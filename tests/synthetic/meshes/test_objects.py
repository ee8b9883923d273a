"""Meshes from files: textures and materials as they are."""

import numpy as np
import pytest
import trimesh
from PIL import Image

from helpers.gltf import Gltf
from keyorbit.errors import InputError
from keyorbit.objects.dataset import load_dataset
from keyorbit.objects.pictures import GREY
from keyorbit.synthetic.meshes.files import read_mesh
from keyorbit.synthetic.meshes.objects import render_mesh
from keyorbit.synthetic.meshes.surface import PLAIN, load_mesh
from keyorbit.synthetic.render import Light


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


@pytest.mark.parametrize("name", ["tex\\red one.png", "-s 1 1 1 tex/red one.png", "C:\\work\\red one.png"])
def test_textures_are_found_as_programs_name_them(name, tmp_path):
    (tmp_path / "tex").mkdir()
    for place in (tmp_path / "tex", tmp_path):
        Image.new("RGB", (2, 2), (200, 0, 0)).save(place / "red one.png")
    write_textured(tmp_path, name)
    red, green = load_mesh(tmp_path / "m.obj").surface.look.materials
    assert red.texture[0, 0].tolist() == [200, 0, 0, 255]
    assert green.color == pytest.approx((0, 1, 0, 1))


def test_a_damaged_texture_is_named(tmp_path):
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing")
    write_textured(tmp_path, "bad.png")
    with pytest.raises(InputError, match=r"m\.obj cannot be read as a mesh: the texture .*bad\.png cannot be read"):
        read_mesh(tmp_path / "m.obj")


def write_textured(folder, name):
    """Two materials in one file: one with a texture, one with a colour."""
    (folder / "m.mtl").write_text(f"newmtl a\nmap_Kd {name}\nnewmtl b\nKd 0 1 0\n")
    corners = "v 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\nvt 0 0\nvt 1 0\nvt 0 1\n"
    faces = "usemtl a\nf 1/1 2/2 3/3\nusemtl b\nf 1/1 2/2 4/3\n"
    (folder / "m.obj").write_text(f"mtllib m.mtl\n{corners}{faces}")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.glb", "", "is an empty file"),
        ("a.glb", "version https://git-lfs.github.com/spec/v1", "pointer of Git LFS"),
        ("a.obj", "v 0 0 0\nv 1 0 0\nl 1 2\n", "points and lines alone are no surface"),
        ("a.ply", "ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nproperty float y\nproperty float z\n"
         "end_header\n0 0 0\n", "points and lines alone are no surface"),
    ],
)  # fmt: skip
def test_what_is_no_mesh_says_so(name, content, words, tmp_path):
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=words):
        read_mesh(tmp_path / name)


def test_colours_of_a_ply_are_srgb(tmp_path):
    box = trimesh.creation.box((1, 1, 1))
    box.visual.vertex_colors = [85, 75, 60, 255]
    box.export(tmp_path / "a.ply")
    np.testing.assert_allclose(load_mesh(tmp_path / "a.ply").surface.face_colors * 255, [[85, 75, 60]] * 12, atol=0.01)


@pytest.mark.parametrize(
    ("factor", "plain"), [((1, 1, 1, 1), True), ((0.8, 0.8, 0.8, 1), True), ((0.9, 0, 0, 1), False)]
)
def test_a_mesh_without_colours_differs_from_the_ground(factor, plain, tmp_path):
    file = Gltf()
    file.shown(material=file.material(factor))
    found = load_mesh(file.write(tmp_path / "a.glb"))
    assert found.plain == plain
    if plain:
        light = Light()
        shades = PLAIN * light.ambient, PLAIN * (light.ambient + light.diffuse)
        assert min(abs(shade - GREY) for shade in shades) > 0.09
        assert (shades[0] - GREY) * (shades[1] - GREY) > 0  # all of it is darker


def test_parts_come_in_the_same_order_in_every_run(tmp_path):
    """trimesh keeps them in a set, whose order differs from run to run."""
    names = [f"m{i}" for i in range(8)]
    (tmp_path / "m.mtl").write_text("".join(f"newmtl {name}\nKd 0 0 {i / 10}\n" for i, name in enumerate(names)))
    faces = "".join(f"usemtl {name}\nf 1 2 3\n" for name in reversed(names))
    (tmp_path / "m.obj").write_text(f"mtllib m.mtl\nv 0 0 0\nv 1 0 0\nv 0 1 0\n{faces}")
    blues = [part.material.color[2] for part in read_mesh(tmp_path / "m.obj").parts]
    np.testing.assert_allclose(blues, np.arange(8) / 10, atol=0.01)
