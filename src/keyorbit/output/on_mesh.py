"""Keypoints on the mesh that an object was rendered from, in the axes and the unit of its file.

Each keypoint is moved to the nearest point of the mesh.

``keypointnet.json``: the form of KeypointNet's annotations (You et al. 2020,
https://github.com/qq456cvb/KeypointNet), a list of one model. ``mesh.glb``: the mesh in grey, and a sphere at each
keypoint.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keyorbit.geometry.keypoints import Keypoints3D
from keyorbit.objects.mesh import PlacedMesh
from keyorbit.output.meshes import RADIUS, ball
from keyorbit.output.palette import keypoint_name, palette, rgb
from keyorbit.storage.files import write_bytes, write_json

_GREY = (0.55, 0.55, 0.55, 1.0)


def write_on_mesh(
    folder: Path,
    mesh: PlacedMesh,
    points: Keypoints3D,
    formats: Sequence[str],
    names: Sequence[str] = (),
    pairs: Sequence[tuple[int, int]] = (),
) -> None:
    """Write ``keypointnet.json`` and ``mesh.glb``, those of them that are among the formats (keypointnet, glb)."""
    if "keypointnet" in formats:
        write_json(folder / "keypointnet.json", [keypointnet_dict(mesh, points, names, pairs)])
    if "glb" in formats:
        write_bytes(folder / "mesh.glb", _scene(mesh, points, names).export(file_type="glb"))


def keypointnet_dict(
    mesh: PlacedMesh, points: Keypoints3D, names: Sequence[str] = (), pairs: Sequence[tuple[int, int]] = ()
) -> dict[str, Any]:
    """Return keypoints as KeypointNet's annotation of one model. Points of score 0 are left out.

    ``xyz`` is on the mesh: ``face_uv`` times the corners of ``face_index``. ``semantic_id`` is the keypoint's number.
    The point cloud of ``point_index`` are the mesh's vertices: the nearest corner of that face. Additions of ours are
    each keypoint's ``name`` and ``score``, its ``distance`` from the mesh before it was moved there, and the face's
    ``vertex_indices``. ``reflection`` has the pairs, mirror images of each other.
    """
    kept = _kept(points)
    on = mesh.nearest(points.xyz[kept].cpu().double().numpy())
    colours, corner = mesh.colours(on.places), mesh.nearest_corner(on)
    keypoints = [
        {
            "xyz": on.places[row].tolist(),
            "rgb": colours[row].tolist(),
            "semantic_id": k,
            "pcd_info": {"point_index": int(corner[row])},
            "mesh_info": {
                "face_index": int(on.face[row]),
                "face_uv": on.weights[row].tolist(),
                "vertex_indices": mesh.faces[on.face[row]].tolist(),
            },
            "name": keypoint_name(k, names),
            "score": float(points.score[k]),
            "distance": float(on.distance[row]),
        }
        for row, k in enumerate(kept)
    ]
    mirrored = [{"kp_indexes": [kept.index(a), kept.index(b)]} for a, b in pairs if a in kept and b in kept]
    return {
        "class_id": mesh.kind,
        "model_id": mesh.model,
        "keypoints": keypoints,
        "symmetries": {"reflection": mirrored, "rotation": []},
    }


def _scene(mesh: PlacedMesh, points: Keypoints3D, names: Sequence[str]) -> Any:
    import trimesh
    from trimesh.visual import TextureVisuals
    from trimesh.visual.material import PBRMaterial

    kept = _kept(points)
    on = mesh.nearest(points.xyz[kept].cpu().double().numpy())
    body = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)
    material = PBRMaterial(name="mesh", baseColorFactor=_GREY, metallicFactor=0.0, roughnessFactor=1.0)
    body.visual = TextureVisuals(material=material)
    scene = trimesh.Scene()
    scene.add_geometry(body, node_name="mesh", geom_name="mesh")
    colors, size = [rgb(color) for color in palette(len(points.score))], 1 / mesh.scale
    for k, place in zip(kept, on.places, strict=True):
        name, stand = keypoint_name(k, names), np.eye(4)
        stand[:3, 3] = place
        scene.add_geometry(ball(name, colors[k], RADIUS * size), node_name=name, geom_name=name, transform=stand)
    return scene


def _kept(points: Keypoints3D) -> list[int]:
    return [k for k in range(len(points.score)) if float(points.score[k]) > 0]
