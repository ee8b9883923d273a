"""Which cameras a Zero123++ folder's views have: its model_index.json tells, never a name or a path."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from keyorbit.diffusion.choices import VERSIONS
from keyorbit.errors import InputError
from keyorbit.geometry.cameras import Cameras
from keyorbit.geometry.rigs import known_rigs, zero123plus_cameras
from keyorbit.geometry.views import Layout

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


def camera_choices() -> tuple[str, ...]:
    """What ``cameras_of`` may be: Zero123++'s versions, and the rigs that are tiled as its views are."""
    return VERSIONS + tuple(name for name, rig in known_rigs().items() if rig.tiled and rig.layout == LAYOUT)


def check_choice(name: str) -> str:
    """The name, if there are such cameras.

    Raises:
        InputError: there are none, or none that are tiled as Zero123++'s views are.
    """
    if name in camera_choices():
        return name
    why = "are not tiled as Zero123++'s views are" if name in known_rigs() else "are unknown"
    raise InputError(f"the cameras of {name!r} {why}: give one of {', '.join(camera_choices())}")


def chosen_cameras(name: str) -> Cameras:
    """The six cameras of one of :func:`camera_choices`."""
    return zero123plus_cameras(name) if name in VERSIONS else known_rigs()[name].cameras


def cameras_in(index: Mapping[str, Any], folder: Path) -> str:
    """The name of the cameras of the model in ``folder``, of which ``index`` is the model_index.json.

    Its ``version``, which keyorbit writes, else the published model whose ramping coefficients it has, else v1.2 with a
    warning.
    """
    if index.get("version") in camera_choices():
        return str(index["version"])
    ramp = index.get("ramping_coefficients") or ()
    for version, known in _RAMPS.items():
        if len(ramp) >= len(known) and all(abs(x - y) < _SAME for x, y in zip(ramp, known, strict=False)):
            return version
    log.warning(
        "%s is no published Zero123++, and does not say which cameras its views have: taken are those of v1.2; "
        "--cameras-of (cameras_of=) says otherwise",
        folder,
    )
    return "v1.2"
