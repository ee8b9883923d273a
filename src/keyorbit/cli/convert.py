"""``keyorbit convert``: a model without pickles."""

from pathlib import Path
from typing import Annotated

import typer

from keyorbit.cli.options import OverwriteOption
from keyorbit.cli.telling import JsonOption, tell_json
from keyorbit.cli.terminal import console
from keyorbit.diffusion.paths import check_model
from keyorbit.storage.outputs import CONVERTED, check_output


def convert_command(
    source: Annotated[str, typer.Argument(help="A model's or ControlNet's folder or Hub id, or a file of weights.")],
    out: Annotated[Path, typer.Argument(help="The folder to write, or a .safetensors file for a file.")],
    overwrite: OverwriteOption = False,
    json_file: JsonOption = None,
) -> None:
    """Write a model anew with safetensors in place of pickles (.bin, .ckpt, .pt), which load_backend never opens.

    A pickle is read with torch.load(weights_only=True), so that no code in it runs, and every tensor is compared bit
    for bit with what was written.
    """
    if not Path(source).is_file():
        check_model(source)
        check_output(out, CONVERTED, overwrite)

    from keyorbit.diffusion.backends.convert import convert

    found = convert(source, out, overwrite)
    tell_json(json_file, "convert", {"out": str(out), "pickles": list(found)})
    if found:
        console.print(f"pickles converted into {out}: {', '.join(found)}", soft_wrap=True, highlight=False)
    else:
        console.print(f"copied into {out}: there were no pickles to convert", soft_wrap=True, highlight=False)
