"""A small mesh that is no other when it is turned, in several colours and several files."""

import json

import numpy as np
import trimesh

# Of the seat, the back and an arm; in the file's axes, y up and the front along +z.
BOXES = (
    ((1.0, 0.2, 1.0), (0.0, 0.0, 0.0), (200, 60, 40, 255)),
    ((0.9, 1.0, 0.2), (0.0, 0.5, -0.38), (40, 90, 200, 255)),
    ((0.2, 0.4, 0.8), (0.38, 0.25, 0.08), (60, 180, 80, 255)),
)
# Names and places of points of its surface.
POINTS = {"seat": (0.0, 0.1, 0.5), "top": (0.0, 1.0, -0.4), "arm": (0.4, 0.45, 0.4), "back": (0.0, 0.3, -0.48)}


def chair(scale=1.0, shift=(0.0, 0.0, 0.0)):
    """A chair with one arm."""
    parts = []
    for extent, place, color in BOXES:
        box = trimesh.creation.box(extent)
        box.apply_translation(place)
        box.visual.face_colors = np.tile(color, (len(box.faces), 1))
        parts.append(box)
    mesh = trimesh.util.concatenate(parts)
    mesh.apply_scale(scale)
    mesh.apply_translation(shift)
    return mesh


def write_chair(path, scale=1.0, shift=(0.0, 0.0, 0.0)):
    """Write it by its suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    chair(scale, shift).export(path)
    return path


def write_painted_obj(path):
    """Write it as an OBJ whose materials alternate from face to face, with polygons and texture coordinates."""
    lines, materials = ["mtllib paint.mtl"], ("red", "blue", "red", "green")
    for i, (x, y, z) in enumerate(chair().vertices.tolist()):
        lines += [f"v {x} {y} {z}", f"vt {i % 3 / 2} {i % 5 / 4}"]
    faces = chair().faces.tolist()
    for i, (a, b, c) in enumerate(faces):
        # Each has texture coordinates of its own, so that no corner can be shared.
        lines += [f"usemtl {materials[i % 4]}", "f " + " ".join(f"{v + 1}/{(v + i) % 24 + 1}" for v in (a, b, c))]
    path.write_text("\n".join(lines))
    colors = {"red": (1, 0, 0), "blue": (0, 0, 1), "green": (0, 1, 0)}
    paint = "\n".join(f"newmtl {name}\nKd {r} {g} {b}" for name, (r, g, b) in colors.items())
    path.with_name("paint.mtl").write_text(paint)
    return path, np.array(faces)


def write_keypointnet(path, models):
    """Write annotations in KeypointNet's form: points of each model by semantic id."""
    told = [
        {"class_id": "1", "model_id": name, "keypoints": [{"xyz": xyz, "semantic_id": k} for k, xyz in points.items()]}
        for name, points in models.items()
    ]
    path.write_text(json.dumps(told))
    return path
