"""How a Zero123++ folder's views lie, and their cameras: its model_index.json tells, never a name or a path."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from keyorbit.diffusion.backends.configurations import Zero123PlusIndex
from keyorbit.diffusion.choices import RIGS, VERSIONS, ViewChoice, layout_numbers
from keyorbit.diffusion.rig_choice import check_rig, rig_file
from keyorbit.errors import InputError
from keyorbit.geometry.cameras import Cameras
from keyorbit.geometry.matrices import CameraMatrices
from keyorbit.geometry.rigs import known_rigs, zero123plus_cameras
from keyorbit.geometry.views import Layout
from keyorbit.objects.dataset import as_cameras, check_given_cameras

log = logging.getLogger(__name__)

LAYOUT = Layout(3, 2)
# Both published models have the same parts, but learned their ramping_coefficients anew: the first of each, as in
# huggingface.co/sudo-ai/zero123plus-v1.1 and -v1.2. Whatever saves the folder again keeps them, while the names there
# mislead: v1.2 gives "sudo-ai/zero123plus-v1.1" as what it was loaded from.
_RAMPS = {
    "v1.1": (0.0, 0.2060057818889618, 0.18684479594230652, 0.24342191219329834, 0.18507817387580872),
    "v1.2": (0.00301829120144248, 0.2204633206129074, 0.21527841687202454, 0.23498539626598358, 0.1914631873369217),
}
_SAME = 1e-4


def rig_cameras(rig: str) -> Cameras:
    """The cameras of a version of Zero123++, of a rig that is known by name, or in a JSON file.

    Raises:
        InputError: there are none of that name, or those in the file cannot be read or are of another convention.
    """
    check_rig(rig)
    if rig in RIGS:
        return zero123plus_cameras(rig) if rig in VERSIONS else known_rigs()[rig].cameras
    return _given(rig_file(Path(rig)), rig)


def _given(matrices: CameraMatrices, where: str) -> Cameras:
    cameras = as_cameras(matrices)
    check_given_cameras(cameras, where, [1.0] * len(cameras))
    return cameras.to(dtype=torch.float32)


def views_of(
    index: Mapping[str, Any], told: Zero123PlusIndex, folder: Path, choice: ViewChoice
) -> tuple[Layout, Cameras]:
    """The layout and the cameras of the model in ``folder``, of which ``index`` is the model_index.json, read as told.

    What is chosen counts, then what the index says: ``layout``, ``cameras`` (matrices as in a file of cameras), and
    what :func:`cameras_in` reads off it. Without a layout, views are tiled 3 x 2.

    Raises:
        InputError: the cameras are not as many as the views, or belong to a rig whose views are not tiled and nobody
            says how they are here; or as :func:`rig_cameras`.
    """
    numbers = told.rows_and_columns if choice.layout is None else layout_numbers(choice.layout)
    given = None if numbers is None else Layout(*numbers)
    if choice.rig is None and told.cameras is not None:
        name = "model_index.json"
        cameras = _given(told.cameras, str(folder / name))
    else:
        name = choice.rig or cameras_in(index, folder)
        cameras = rig_cameras(name)
    rig = known_rigs().get(name)
    if given is None and rig is not None and not rig.tiled:
        raise InputError(
            f"the cameras of {name!r} are for views that are not tiled as Zero123++'s views are: say how these are, "
            f"such as --layout {rig.layout.text} (layout=)"
        )
    layout = given or LAYOUT
    if len(cameras) != layout.num_views:
        fits = [known.name for known in known_rigs().values() if len(known.cameras) == layout.num_views]
        raise InputError(
            f"{folder} has {layout.num_views} views in a layout of {layout.text}, and there are {len(cameras)} cameras "
            f"({name}): say whose cameras the views have, --rig {' or '.join([*fits, 'FILE.json'])} (rig=), or give "
            "another --layout (layout=)"
        )
    if layout != LAYOUT and choice.rig is None and told.cameras is None and index.get("version") not in RIGS:
        words = "%s: its views, row by row, are taken to have the cameras of %s; --rig (rig=) says otherwise"
        log.warning(words, folder, name)
    return layout, cameras


def index_with_views(
    index: Mapping[str, Any], source: Path, layout: Layout, cameras: Cameras, rig: str
) -> dict[str, Any]:
    """The model_index.json with the layout and the cameras that the model of it, in ``source``, was loaded with.

    Args:
        rig: whose cameras were chosen; empty if none were.
    """
    written = dict(index)
    if layout != LAYOUT or "layout" in index:
        written["layout"] = layout.text
    if rig in RIGS or (not rig and "cameras" not in index):
        written.pop("cameras", None)
        written["version"] = rig or cameras_in(index, source)
    elif rig:
        written["cameras"] = cameras.to("cpu").to_dict()
    return written


def cameras_in(index: Mapping[str, Any], folder: Path) -> str:
    """The name of the cameras of the model in ``folder``, of which ``index`` is the model_index.json.

    Its ``version``, which keyorbit writes, else the published model whose ramping coefficients it has, else v1.2 with a
    warning.
    """
    if index.get("version") in RIGS:
        return str(index["version"])
    ramp = index.get("ramping_coefficients") or ()
    for version, known in _RAMPS.items():
        if len(ramp) >= len(known) and all(abs(x - y) < _SAME for x, y in zip(ramp, known, strict=False)):
            return version
    log.warning(
        "%s is no published Zero123++, and does not say which cameras its views have: taken are those of v1.2; "
        "--rig (rig=) says otherwise",
        folder,
    )
    return "v1.2"
