"""Small glTF files, made from arrays."""

import json
import struct

import numpy as np

TYPES = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4", 16: "MAT4"}
COMPONENTS = {"i1": 5120, "u1": 5121, "i2": 5122, "u2": 5123, "u4": 5125, "f4": 5126}
# Faces +z, as glTF's objects do: 2 wide and 2 high.
SQUARE = np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]], "f4")
SQUARE_UV = np.array([[0, 1], [1, 1], [1, 0], [0, 0]], "f4")
TWO = np.array([0, 1, 2, 0, 2, 3], "u2")


class Gltf:
    """A glTF under construction; ``told`` is its JSON, and may be changed at will."""

    def __init__(self):
        self.told = {"asset": {"version": "2.0"}, "accessors": [], "bufferViews": [], "meshes": [], "nodes": []}
        self.data = b""

    def view(self, data, **more):
        self.data += b"\0" * (-len(self.data) % 4)
        self.told["bufferViews"].append({"buffer": 0, "byteOffset": len(self.data), "byteLength": len(data), **more})
        self.data += bytes(data)
        return len(self.told["bufferViews"]) - 1

    def array(self, values, **more):
        values = np.asarray(values)
        flat = values.reshape(len(values), -1)
        entry = {
            "bufferView": self.view(flat.tobytes()),
            "count": len(flat),
            "type": TYPES[flat.shape[1]],
            "componentType": COMPONENTS[values.dtype.str[1:]],
            **more,
        }
        self.told["accessors"].append(entry)
        return len(self.told["accessors"]) - 1

    def mesh(self, vertices=SQUARE, indices=TWO, material=None, mode=None, extensions=None, **attributes):
        primitive = {"attributes": {"POSITION": self.array(vertices), **attributes}}
        if indices is not None:
            primitive["indices"] = self.array(indices)
        for name, value in (("material", material), ("mode", mode), ("extensions", extensions)):
            if value is not None:
                primitive[name] = value
        self.told["meshes"].append({"primitives": [primitive]})
        return len(self.told["meshes"]) - 1

    def node(self, **told):
        self.told["nodes"].append(told)
        return len(self.told["nodes"]) - 1

    def shown(self, **told):
        """A mesh in a node of its own, with arguments of :meth:`mesh`."""
        return self.node(mesh=self.mesh(**told))

    def material(self, factor=None, **more):
        rough = {} if factor is None else {"baseColorFactor": list(factor)}
        self.told.setdefault("materials", []).append({"pbrMetallicRoughness": rough, **more})
        return len(self.told["materials"]) - 1

    def texture(self, png, wrap=None):
        """A material with a texture."""
        for name in ("images", "textures", "samplers"):
            self.told.setdefault(name, [])
        self.told["images"].append({"bufferView": self.view(png), "mimeType": "image/png"})
        self.told["samplers"].append({} if wrap is None else {"wrapS": wrap, "wrapT": wrap})
        self.told["textures"].append(
            {"source": len(self.told["images"]) - 1, "sampler": len(self.told["samplers"]) - 1}
        )
        i = self.material()
        use = {"index": len(self.told["textures"]) - 1}
        self.told["materials"][i]["pbrMetallicRoughness"]["baseColorTexture"] = use
        return i

    def bytes(self):
        """The file as a GLB."""
        told = {**self.told, "buffers": self.told.get("buffers", [{"byteLength": len(self.data)}])}
        text = json.dumps(told).encode()
        text += b" " * (-len(text) % 4)
        data = self.data + b"\0" * (-len(self.data) % 4)
        chunks = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(data), b"BIN\0") + data
        return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks

    def write(self, path):
        path.write_bytes(self.bytes())
        return path
