"""Which weights a model has, as a short text: what tokens and caches are compared with a model by."""

import hashlib
from pathlib import Path


def fingerprint(folder: Path, unet: Path | None = None) -> str:
    """A short hash of a model folder's weights: names, sizes, and the first, middle and last MiB of each file.

    With ``unet``, that file stands in for the folder's own UNet.
    """
    digest = hashlib.sha256()
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.glob("*/*.safetensors"))}
    if unet is not None:
        files = {name: path for name, path in files.items() if not name.startswith("unet/")} | {"unet": unet}
    for name, path in files.items():
        size = path.stat().st_size
        digest.update(f"{name} {size}\n".encode())
        with path.open("rb") as file:
            for start in (0, size // 2, max(0, size - 2**20)):
                file.seek(start)
                digest.update(file.read(2**20))
    return digest.hexdigest()[:16]
