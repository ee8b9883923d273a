"""COLMAP's models, written by its documentation: what the package reads does not hang on what it writes."""

import struct

from scipy.spatial.transform import Rotation


def write_model(folder, cameras, width, height, names):
    """One PINHOLE camera of ``width`` by ``height`` pixels for all pictures, and no points."""
    folder.mkdir(exist_ok=True)
    (fx, _, cx), (_, fy, cy), _ = cameras.intrinsics[0].double().tolist()
    inner = f"{fx * width} {fy * height} {cx * width} {cy * height}"
    (folder / "cameras.txt").write_text(f"1 PINHOLE {width} {height} {inner}\n")
    rows = []
    for i, (name, rigid) in enumerate(zip(names, cameras.world_to_camera.double().numpy(), strict=True)):
        x, y, z, w = Rotation.from_matrix(rigid[:3, :3]).as_quat()
        rows += [f"{i + 1} {w} {x} {y} {z} {' '.join(map(str, rigid[:3, 3]))} 1 {name}", ""]
    (folder / "images.txt").write_text("\n".join(rows))


def write_binary(folder, cameras, width, height, names, points=3, model=1):
    """The same model in COLMAP's binary format, with some points in each image and a row of zeros for each of these."""
    folder.mkdir(exist_ok=True)
    (fx, _, cx), (_, fy, cy), _ = cameras.intrinsics[0].double().tolist()
    inner = [fx * width, fy * height, cx * width, cy * height][0 if model else 1 :]
    (folder / "cameras.bin").write_bytes(
        struct.pack("<Q", 1) + struct.pack(f"<IiQQ{len(inner)}d", 1, model, width, height, *inner)
    )
    content = struct.pack("<Q", len(names))
    for i, (name, rigid) in enumerate(zip(names, cameras.world_to_camera.double().numpy(), strict=True)):
        x, y, z, w = Rotation.from_matrix(rigid[:3, :3]).as_quat()
        content += struct.pack("<I7dI", i + 1, w, x, y, z, *rigid[:3, 3], 1) + name.encode() + b"\0"
        content += struct.pack("<Q", points) + bytes(24 * points)
    (folder / "images.bin").write_bytes(content)
