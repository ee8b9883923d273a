"""``keyorbit protocol``: published protocols from end to end."""

from pathlib import Path
from typing import Annotated

import typer

from keyorbit.cli.options import (
    DeterministicOption,
    DeviceOption,
    DtypeOption,
    OverwriteOption,
    StrategyOption,
    SubjectsOption,
    changed,
    check_model_options,
)
from keyorbit.cli.telling import JsonOption, tell_json
from keyorbit.cli.terminal import console, progress
from keyorbit.devices import AUTO
from keyorbit.discovery.choices import Preset
from keyorbit.discovery.ranges import Rate
from keyorbit.errors import one_of
from keyorbit.evaluation.choices import PROTOCOL_DATASETS, ProtocolConfig, ProtocolMapSide, check_dataset
from keyorbit.storage.files import write_json
from keyorbit.storage.outputs import OutputKind, check_output, replaced_folder
from keyorbit.values import Amount, Count, Seed

RUN = OutputKind("protocol run")


def protocol_command(
    dataset: Annotated[str, typer.Option(help=f"One of {', '.join(PROTOCOL_DATASETS)}.")],
    data: Annotated[Path, typer.Option(help="The data set's folder in its published layout.")],
    out: Annotated[Path, typer.Option(help="Where tokens and result go.")],
    model: Annotated[str, typer.Option(help="A folder or Hub id of Stable Diffusion.")],
    keypoints: Annotated[int, typer.Option(help="Keypoints kept."), Count] = ProtocolConfig.keypoints,
    tokens: Annotated[int, typer.Option(help="Tokens optimised."), Count] = ProtocolConfig.tokens,
    steps: Annotated[int, typer.Option(help="Optimisation steps."), Amount] = ProtocolConfig.steps,
    batch: Annotated[int, typer.Option(help="Pictures a step."), Count] = ProtocolConfig.batch,
    pictures: Annotated[
        int | None, typer.Option(help="Train pictures to optimise on; default all, by keyorbit 100."), Count
    ] = None,
    fit: Annotated[int, typer.Option(help="Train pictures to regress on, at most."), Count] = ProtocolConfig.fit,
    test: Annotated[int | None, typer.Option(help="Test pictures, at most; default all."), Count] = None,
    augmentations: Annotated[
        int, typer.Option(help="Warps averaged in detection."), Amount
    ] = ProtocolConfig.augmentations,
    map_size: Annotated[int, typer.Option(help="Side of the maps."), ProtocolMapSide] = ProtocolConfig.map_size,
    rate: Annotated[float, typer.Option(help="Learning rate."), Rate] = ProtocolConfig.rate,
    subjects: SubjectsOption = None,
    strategy: StrategyOption = None,
    preset: Annotated[
        str,
        typer.Option(help="stablekeypoints: all as published; keyorbit: its numbers and our choices, much faster."),
        Preset,
    ] = ProtocolConfig.preset,
    seed: Annotated[int, typer.Option(help="Of tokens, noise and batches."), Seed] = 0,
    overwrite: OverwriteOption = False,
    json_file: JsonOption = None,
    device: DeviceOption = AUTO,
    dtype: DtypeOption = AUTO,
    deterministic: DeterministicOption = False,
) -> None:
    """StableKeypoints: optimise, select, regress, evaluate, beside the paper's number."""
    one_of("--dataset", dataset, PROTOCOL_DATASETS)
    check_model_options(model, dtype=dtype)
    check_output(out, RUN, overwrite)
    check_dataset(dataset, data)

    from keyorbit.cli.tables import protocol_table
    from keyorbit.cli.work.loading import load_model, use_device
    from keyorbit.evaluation.protocol import run_protocol
    from keyorbit.evaluation.readers import read_dataset

    numbers = keypoints, tokens, steps, batch, rate, pictures, fit, test, augmentations, map_size, seed
    config = changed(ProtocolConfig(*numbers), preset=preset, subjects=subjects, strategy=strategy)
    train_objects, test_objects = read_dataset(dataset, data, "train"), read_dataset(dataset, data, "test")
    backend = load_model(model, use_device(device, deterministic), dtype)
    with progress() as tick:
        result = run_protocol(backend, dataset, train_objects, test_objects, config, None, tick)
    with replaced_folder(out, RUN, overwrite) as partial:
        result.tokens.save(partial / "tokens.safetensors")
        write_json(partial / "protocol.json", result.to_dict())
    tell_json(json_file, "protocol stablekeypoints", {"out": str(out), **result.to_dict()})
    console.print(protocol_table(result))
