"""Arrays of HDF5 files, of which nothing is read but what lies in the file itself."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy import ndarray

from keyorbit.errors import InputError
from keyorbit.evaluation.readers.tables import Array

# Deflate packs to a 1032nd at best: whoever declares more has not written it.
_PACKED = 1100


def h5_arrays(path: Path, wanted: Mapping[str, Array]) -> dict[str, ndarray]:
    """Read arrays by name, with h5py installed. Their shapes are checked, and that they are numbers.

    Raises:
        InputError: the file is damaged or lacks an array, or one is another, lies in another file or is not there.
    """
    try:
        import h5py
    except ImportError as error:
        raise InputError(f"reading {path} needs h5py: pip install 'keyorbit[readers]'") from error
    try:
        with h5py.File(path, "r") as file:
            for name, array in wanted.items():
                parts = name.split("/")
                # From the outermost group inwards: none may lead into another file.
                links = (file.get("/".join(parts[:end]), getlink=True) for end in range(1, len(parts) + 1))
                inside = next((link for link in links if not isinstance(link, h5py.HardLink)), True)
                if inside is None:
                    raise InputError(f"{path} lacks {name}; there must be {', '.join(wanted)}")
                found = file[name] if inside is True else None
                if not isinstance(found, h5py.Dataset) or found.external or found.is_virtual:
                    raise InputError(f"{path}: {name} is no array in this file itself; it must be one")
                if found.dtype.kind not in "biuf":
                    raise InputError(
                        f"{path}: {name} holds values of type {found.dtype}; it must be an array of numbers"
                    )
                array.check_shape(found.shape or (), f"{path}: {name}")
                if found.size * found.dtype.itemsize > _PACKED * found.id.get_storage_size():
                    raise InputError(f"{path}: {name} declares {found.size:,} numbers, which the file does not hold")
            return {name: np.asarray(file[name]) for name in wanted}
    except InputError:
        raise
    except Exception as error:  # the library raises nearly anything for damaged files
        raise InputError(f"{path} cannot be read as HDF5: {error or type(error).__name__}") from error
