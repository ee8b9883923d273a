"""Meshes as other programs write them, with colours and numbers of triangles that are known."""

import logging
import struct

import numpy as np
import pytest
from PIL import Image

from helpers.gltf import SQUARE, Gltf
from keyorbit.errors import InputError
from keyorbit.synthetic.meshes.files import read_mesh
from keyorbit.synthetic.meshes.materials import colors_at
from keyorbit.synthetic.meshes.parts import joined
from keyorbit.synthetic.meshes.surface import load_mesh

PLACES = [(0, 0, 0), (1, 0, 0), (0, 2, 0), (0, 0, 3)]
FACES = [(0, 2, 1), (0, 1, 3), (0, 3, 2), (1, 2, 3)]
RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def read(path):
    """How many triangles a file has, and their colours."""
    _, faces, look = joined(read_mesh(path).parts)
    colours = colors_at(look, np.arange(len(faces)), np.full((len(faces), 3), 1 / 3))
    return len(faces), {tuple(np.round(255 * colour[:3]).astype(int).tolist()) for colour in colours}


def lines(rows, more=""):
    return "".join(" ".join(map(str, row)) + more + "\n" for row in rows)


def corners(faces=FACES, more=""):
    return lines([(len(face), *face) for face in faces], more)


@pytest.mark.parametrize(
    ("text", "count", "colours"),
    [
        (f"OFF4 4 0\n{lines(PLACES)}{corners()}", 4, None),  # ModelNet
        (f"# made\noff\n\n4 4 6 # counts\n{lines(PLACES)}{corners()}", 4, None),
        (f"4 4 6\r\n{lines(PLACES)}{corners()}", 4, None),
        (f"COFF\n4 4 6\n{lines(PLACES, ' 255 0 0 255')}{corners()}", 4, {RED}),
        (f"COFF\n4 4 6\n{lines(PLACES, ' 1.0 0 0 1.0')}{corners()}", 4, {RED}),
        (f"STCNOFF\n4 4 6\n{lines(PLACES, ' 0 0 1 255 0 0 0.5 0.5')}{corners()}", 4, {RED}),
        (f"NOFF\n4 4 6\n{lines(PLACES, ' 0 0 1')}{corners()}", 4, None),
        (f"OFF\n4 4 6\n{lines(PLACES)}{corners(more=' 0 255 0')}", 4, {GREEN}),
        (f"OFF\n4 2 6\n{lines(PLACES)}{corners([(0, 1, 2, 3)], ' 0.0 1.0 0.0')}{corners([(0, 1, 2)])}", 3,
         {GREEN, (102, 102, 102)}),
        (f"OFF\n5 3 0\n{lines([*PLACES, (1, 1, 1)])}{corners([(0, 1, 2, 3, 4), (0, 1, 2), (0, 1, 2, 3)])}", 6, None),
    ],
)  # fmt: skip
def test_off_files_of_all_kinds(text, count, colours, tmp_path):
    (tmp_path / "a.off").write_text(text)
    assert read(tmp_path / "a.off") == (count, colours or {(102, 102, 102)})


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"OFF BINARY\n" + bytes(40), "is a binary OFF file"),
        (b"OFF\n4 4 0\n0 0 0\n", "is cut: it tells of 4 vertices and 4 faces"),
        (b"OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n4 0 1 2\n", "a face of 4 corners has 3"),
        (b"OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 9\n", "face 0 has vertex 9"),
    ],
)
def test_a_broken_off_file_is_named(content, words, tmp_path):
    (tmp_path / "a.off").write_bytes(content)
    with pytest.raises(InputError, match=words):
        read(tmp_path / "a.off")


def stl(head=b"", words=(0, 0, 0, 0), count=4, tail=b""):
    """A binary STL."""
    facets = zip(FACES, words, strict=True)
    places = (struct.pack("<12fH", 0, 0, 1, *np.ravel([PLACES[i] for i in face]), word) for face, word in facets)
    return head.ljust(80, b" ") + struct.pack("<I", count) + b"".join(places) + tail


@pytest.mark.parametrize("more", [{"count": 0}, {"count": 2**32 - 1}, {"tail": bytes(20)}, {"head": b"solid by x"}])
def test_facets_of_an_stl_are_counted(more, tmp_path):
    (tmp_path / "a.stl").write_bytes(stl(**more))
    assert read(tmp_path / "a.stl")[0] == 4


@pytest.mark.parametrize(
    ("head", "words", "colours"),
    [
        (b"", [2**15 + (31 << 10)] * 4, {RED}),
        (b"", [2**15 + 31] * 3 + [0], {BLUE, (102, 102, 102)}),
        (b"COLOR=\xff\x00\x00\xff,MATERIAL=", [2**15] * 4, {RED}),
        (b"COLOR=\xff\x00\x00\xff,MATERIAL=", [31 << 5] * 2 + [2**15] * 2, {RED, GREEN}),
        (b"", [5, 2**15, 0, 0], {(102, 102, 102)}),  # it is something else
    ],
)
def test_an_stl_has_colours_of_viscam_or_magics(head, words, colours, tmp_path):
    (tmp_path / "a.stl").write_bytes(stl(head, words))
    assert read(tmp_path / "a.stl") == (4, colours)


@pytest.mark.parametrize("order", ["<", ">"])
def test_polygons_of_a_binary_ply_may_differ(order, tmp_path):
    kind = "little" if order == "<" else "big"
    faces = [(0, 1, 2), (0, 1, 2, 3), (0, 1), (3, 2, 1, 0, 1)]
    head = f"ply\nformat binary_{kind}_endian 1.0\nelement vertex 4\n" + "".join(f"property float {x}\n" for x in "xyz")
    head += f"element face {len(faces)}\nproperty uchar red\nproperty uchar green\nproperty uchar blue\n"
    head += "property list uchar int vertex_indices\nproperty list uchar float texcoord\nend_header\n"
    body = struct.pack(order + "12f", *np.ravel(PLACES))
    for i, face in enumerate(faces):
        body += bytes(BLUE if i else RED) + struct.pack(f"{order}B{len(face)}i", len(face), *face)
        body += struct.pack(f"{order}B{2 * len(face)}f", 2 * len(face), *np.arange(2 * len(face)))
    (tmp_path / "a.ply").write_bytes(head.encode() + body)
    (part,) = read_mesh(tmp_path / "a.ply").parts
    places = [[PLACES.index(tuple(part.vertices[i])) for i in face] for face in part.faces]
    assert places == [[0, 1, 2], [0, 1, 2], [0, 2, 3], [3, 2, 1], [3, 1, 0], [3, 0, 1]]
    (tmp_path / "cut.ply").write_bytes((head.encode() + body)[:-9])
    with pytest.raises(InputError, match=r"cut\.ply cannot be read as a mesh: it is damaged or cut"):
        read_mesh(tmp_path / "cut.ply")


def test_diffuse_colours_of_a_ply_are_its_colours(tmp_path):
    head = "ply\nformat ascii 1.0\nelement vertex 4\n" + "".join(f"property float {x}\n" for x in "xyz")
    head += "".join(f"property uchar diffuse_{name}\n" for name in ("red", "green", "blue"))
    head += "element face 4\nproperty list uchar int vertex_indices\nend_header\n"
    (tmp_path / "a.ply").write_text(head + lines(PLACES, " 255 0 0") + corners())
    assert read(tmp_path / "a.ply") == (4, {RED})


def obj(folder, text, name="a.obj"):
    (folder / "one.mtl").write_bytes(b"\xef\xbb\xbfnewmtl a\nKd 0 1 0\n")
    (folder / "two.mtl").write_text("newmtl b\nKd 0 0 1\n")
    first, second = "usemtl a\nf 1 3 2\nf 1 2 4\n", "usemtl b\nf 1 4 3\n"
    places = "".join("v {} {} {}\n".format(*place) for place in PLACES)
    (folder / name).write_bytes((text + places + first + second).encode())
    return folder / name


@pytest.mark.parametrize(
    "text",
    ["mtllib one.mtl two.mtl\n", "mtllib one.mtl\nmtllib two.mtl\n", "\ufeffmtllib ONE.mtl\r\nmtllib Two.MTL\r\n"],
)
def test_an_obj_may_have_several_libraries_of_materials(text, tmp_path):
    assert read(obj(tmp_path, text)) == (3, {GREEN, BLUE})


def test_a_library_that_is_missing_is_named_alone(tmp_path, caplog):
    assert read(obj(tmp_path, "mtllib gone.mtl two.mtl\n")) == (3, {BLUE, (102, 102, 102)})
    assert [record.getMessage().split(" names ")[1][:10] for record in caplog.records] == ["'gone.mtl'"]


@pytest.mark.parametrize("name", ["WOOD.png", "Tex/Wood.PNG", '"tex/wood.png"', "..\\TEX\\WOOD.PNG"])
def test_textures_are_found_in_any_case(name, tmp_path):
    (tmp_path / "tex").mkdir()
    for place in (tmp_path / "tex", tmp_path):
        Image.new("RGB", (2, 2), RED).save(place / "wood.png")
    (tmp_path / "m.mtl").write_text(f"newmtl a\nmap_Kd {name}\n")
    text = "mtllib m.mtl\nusemtl a\nv 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\nvt 1 0\nvt 0 1\nf 1/1 2/2 3/3\n"
    (tmp_path / "m.obj").write_text(text)
    assert read(tmp_path / "m.obj") == (1, {RED})


def test_a_texture_of_another_kind_is_named(tmp_path):
    (tmp_path / "a.exr").write_bytes(b"v/1\x01nothing")
    (tmp_path / "m.mtl").write_text("newmtl a\nmap_Kd a.exr\n")
    text = "mtllib m.mtl\nusemtl a\nv 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\nvt 1 0\nvt 0 1\nf 1/1 2/2 3/3\n"
    (tmp_path / "m.obj").write_text(text)
    with pytest.raises(InputError, match=r"a\.exr is of a kind that is not read here: save it as PNG or JPEG"):
        read_mesh(tmp_path / "m.obj")


def test_coordinates_without_a_texture_are_no_colour(tmp_path):
    text = "vt 0 0\nvt 1 0\nvt 0 1\n" + "".join("v {} {} {}\n".format(*place) for place in PLACES)
    text += "".join("f {}/1 {}/2 {}/3\n".format(*(i + 1 for i in face)) for face in FACES)
    (tmp_path / "a.obj").write_text(text)
    assert load_mesh(tmp_path / "a.obj").plain
    head = "ply\nformat ascii 1.0\nelement vertex 4\n" + "".join(f"property float {x}\n" for x in "xyzst")
    head += "element face 4\nproperty list uchar int vertex_indices\nend_header\n"
    (tmp_path / "a.ply").write_text(head + lines(PLACES, " 0.1 0.2") + corners())
    assert load_mesh(tmp_path / "a.ply").plain


def test_trimesh_says_nothing_of_its_own(tmp_path, caplog):
    (tmp_path / "a.stl").write_text("solid a\nfacet normal 0 0 1\nouter loop\nvertex 0 0 1.#QNAN\n")
    with caplog.at_level(logging.DEBUG, "trimesh"), pytest.raises(InputError, match=r"a\.stl"):
        read_mesh(tmp_path / "a.stl")
    assert not caplog.records


def test_what_is_no_number_in_a_vertex_of_no_face_does_not_count(tmp_path):
    file = Gltf()
    file.shown(vertices=np.concatenate([SQUARE, np.full((1, 3), np.nan, "f4")]), material=file.material([1, 0, 0, 1]))
    assert read(file.write(tmp_path / "a.glb")) == (2, {RED})


@pytest.mark.parametrize("what", ["coordinates", "picture", "source"])
def test_a_texture_that_is_lost_is_told_once(what, tmp_path, caplog):
    file, png = Gltf(), tmp_path / "red.png"
    Image.new("RGB", (2, 2), RED).save(png)
    material = file.texture(png.read_bytes())
    laid = {} if what == "coordinates" else {"TEXCOORD_0": file.array(np.zeros((4, 2), "f4"))}
    for _ in range(2):
        file.shown(material=material, **laid)
    if what == "picture":
        file.told["images"][0] = {"name": "lost"}
    if what == "source":
        del file.told["textures"][0]["source"]
    assert read(file.write(tmp_path / "a.glb")) == (4, {(255, 255, 255)})
    assert len(caplog.records) == 1
    assert "without" in caplog.text


def test_a_file_with_the_suffix_of_another_format_is_named(tmp_path):
    (tmp_path / "a.glb").write_bytes(b"Kaydara FBX Binary  \x00\x1a\x00")
    with pytest.raises(InputError, match=r"a\.glb is no glTF, whatever its suffix: it begins with b'Kaydara '"):
        read_mesh(tmp_path / "a.glb")
