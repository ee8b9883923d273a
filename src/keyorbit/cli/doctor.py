"""``keyorbit doctor``: whether everything is there, and works."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from keyorbit.cli.telling import JsonOption, tell_json
from keyorbit.cli.terminal import console, errors

if TYPE_CHECKING:
    from keyorbit.cli.checkup import Checkup


def doctor_command(
    json_file: JsonOption = None,
    test: Annotated[
        bool, typer.Option("--test/--no-test", help="Detect keypoints on an object that ships: 20 seconds.")
    ] = True,
) -> None:
    """Tell versions, devices and memory, what optional parts are missing, and whether a known object is found.

    Exit status 1 where something that is needed is missing or does not work.
    """
    from keyorbit.cli.checkup import checkup

    found = checkup(test)
    tell_json(json_file, "doctor", asdict(found) | {"problems": found.problems})
    for line in _lines(found):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    for problem in found.problems:
        errors.print(f"keyorbit: {problem}", style="bold red", markup=False, highlight=False, soft_wrap=True)
    if found.problems:
        raise typer.Exit(1)


def _lines(found: "Checkup") -> list[str]:
    lines = [f"keyorbit {found.keyorbit}, Python {found.python}, {found.system}"]
    lines.append(", ".join(f"{one.name} {one.found or 'missing'}" for one in found.packages))
    for device in found.devices:
        free = f", {device.free / 2**30:.1f} GiB free" if device.free else ""
        chosen = ", chosen unless told otherwise" if device.name.startswith(found.chosen) else ""
        lines.append(f"device {device.words}{free}{chosen}")
    lines.append(f"disk {found.disk_free / 2**30:.1f} GiB free for models in {found.cache}")
    for extra in found.extras:
        lacks = f"not installed ({', '.join(extra.missing)}): {extra.install}" if extra.missing else "installed"
        lines.append(f"extra {extra.name}: {lacks}")
    if found.trial is not None:
        result = "passed" if found.trial.passed else "failed"
        lines.append(f"self-test {result} in {found.trial.seconds:.0f} s: {found.trial.words}")
    return lines
