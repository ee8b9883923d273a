"""A mesh and the files that it names as one: what is in one file stays as it is."""

import io
import zipfile
from pathlib import Path

from keyorbit.objects.paths import MESH_ARCHIVES
from keyorbit.synthetic.meshes.files import files_of_mesh

# Formats that may name materials, textures or buffers in other files.
_NAMING = (".obj", ".gltf", ".dae")
# The earliest time that a ZIP file can tell: the same files make the same bytes.
_TIME = (1980, 1, 1, 0, 0, 0)


def bundled(path: Path) -> tuple[str, bytes]:
    """Return the suffix and the bytes of a mesh file; of one that names others, a ZIP archive of them all.

    Raises:
        InputError: a file that may name others cannot be read as a mesh.
        OSError: it cannot be read at all.
    """
    archive = next((suffix for suffix in MESH_ARCHIVES if path.name.lower().endswith(suffix)), None)
    beside = files_of_mesh(path) if path.suffix.lower() in _NAMING else []
    if not beside:
        return archive or path.suffix.lower(), path.read_bytes()
    folder, data = path.resolve().parent, io.BytesIO()
    with zipfile.ZipFile(data, "w") as packed:
        for file in (path.resolve(), *beside):
            name = file.relative_to(folder).as_posix() if file.is_relative_to(folder) else file.name
            packed.writestr(zipfile.ZipInfo(name, _TIME), file.read_bytes())
    return ".zip", data.getvalue()
