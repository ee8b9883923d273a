"""Damaged mesh files are read, or answered by one sentence that names the file; whatever is read can be rendered."""

import shutil
import zipfile

import numpy as np
import pytest
import trimesh
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from helpers.damage import damaged, damages
from keyorbit.errors import InputError
from keyorbit.geometry.cameras import orbit_cameras
from keyorbit.synthetic.meshes.surface import load_mesh
from keyorbit.synthetic.render import render

CAMERA = orbit_cameras([0.0], [20.0])


@pytest.fixture(scope="module")
def meshes(tmp_path_factory):
    """A box in every format, with a texture where the format has one; each in a folder of its own."""
    root = tmp_path_factory.mktemp("meshes")
    box = trimesh.creation.box((1, 1, 1))
    painted = box.copy()
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (8, 8, 3), np.uint8))
    painted.visual = trimesh.visual.TextureVisuals(np.random.default_rng(0).random((8, 2)), image=image)
    for name in ("stl", "off", "ply", "ascii.ply", "glb", "obj", "gltf", "zip"):
        (root / name).mkdir()
    for name in ("stl", "off", "ply"):
        box.export(root / name / f"box.{name}")
    box.export(root / "ascii.ply" / "box.ply", encoding="ascii")
    for name in ("glb", "obj"):
        painted.export(root / name / f"box.{name}")
    for name, data in trimesh.exchange.gltf.export_gltf(trimesh.Scene(painted)).items():
        (root / "gltf" / name).write_bytes(data)
    with zipfile.ZipFile(root / "zip" / "box.zip", "w") as file:
        file.write(root / "glb" / "box.glb", "box.glb")
    return root


@pytest.mark.parametrize("kind", ["stl", "off", "ply", "ascii.ply", "glb", "obj", "gltf", "zip"])
def test_a_damaged_mesh_is_read_or_named(kind, meshes, tmp_path, tally):
    folder = tmp_path / "meshes"
    shutil.copytree(meshes / kind, folder)
    (mesh,) = [path for path in folder.iterdir() if path.stem in ("box", "model") and path.suffix[1:] in kind]
    files = sorted(folder.iterdir(), key=lambda path: path != mesh)

    load_mesh(mesh)  # as it was, it is good

    @given(st.sampled_from(files), damages())
    def tried(path, damage):
        said = None
        with damaged(path, damage):
            try:
                pictures = render(load_mesh(mesh).surface, CAMERA, 8)
                assert pictures.shape == (1, 8, 8, 4)
            except InputError as error:
                said = str(error)
        assert said is None or (str(mesh) in said and "\n" not in said)
        tally["readers", f"mesh, {kind}", "one sentence" if said else "accepted"] += 1

    tried()
