"""Whether a new model may replace the old one: ``python -m tiny_model.judge OLD NEW``.

Both are shown the same pictures of objects that no model was trained on, with the same noise, and their six views are
judged: how like the true ones they are, what kind of object they show and which way it faces, and how far from their
true places the landmarks are that tokens fitted to landmarks find on them. Figures of two models of the same quality
differ by chance, so pictures are compared one by one: the new model ships if by no figure, on no kind, the mean
difference is worse than nothing by more than two of its standard errors; else the exit status is 1.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any

import numpy as np
import torch
import typer
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from keyorbit.detection.detector import KeypointDetector
from keyorbit.devices import AUTO
from keyorbit.diffusion.backends.zero123plus import Zero123PlusBackend
from keyorbit.diffusion.choices import GUIDANCE, STEPS
from keyorbit.diffusion.tokens import Tokens
from keyorbit.errors import InputError
from keyorbit.geometry.hull import silhouettes
from keyorbit.geometry.views import split_views
from keyorbit.objects.dataset import ObjectViews
from keyorbit.objects.pictures import GREY, load_image, to_tensor, to_uint8
from keyorbit.storage.files import write_text
from keyorbit.synthetic.objects import CATEGORIES
from keyorbit.synthetic.render import composite
from keyorbit.synthetic.samples import SampleSpec, as_object, make_samples
from tiny_model.command import run
from tiny_model.kinds import Outlines, known_outlines, likeness, turned_by
from tiny_model.meshes import MeshSpec, held_out, mesh_files, see_mesh, standing
from tiny_model.model import load_zero123plus
from tiny_model.probe import ProbeConfig, fit_tokens, probe_objects

# Objects that are in no training set, no data set and no probe.
_JUDGED = 2 * 10**9 + 2 * 10**6
_TURNED = 45.0  # degrees from which on an object faces the wrong way
# The figures of a verdict: 1 where more is better, -1 where less is.
_FIGURES = {"psnr": 1, "kind": 1, "heading": 1, "landmarks": -1}
MOST_BYTES = 30 * 10**6
# What names of pictures say, where they do not say the kind itself.
_ALSO = {"horse": "animal", "fox": "animal", "dog": "animal", "corgi": "animal", "plane": "aeroplane"}


@dataclass(frozen=True)
class JudgeConfig:
    """objects: of each kind. probe: how tokens are fitted; None: landmarks are not judged. steps: of sampling."""

    kinds: tuple[str, ...] = ("chair", "car", "aeroplane", "animal")
    objects: int = 16
    probe: ProbeConfig | None = None
    steps: int = STEPS
    guidance: float = GUIDANCE
    batch: int = 8


@dataclass(frozen=True, eq=False)
class Case:
    """One picture to judge by. kind: what it is. azimuth_deg: its heading, and thing: its true views, where known.

    alike: how many turns of it look alike; one that looks alike from all around has no heading.
    """

    group: str
    kind: str
    picture: Image.Image
    azimuth_deg: float | None = None
    thing: ObjectViews | None = None
    alike: int = 1


@dataclass(frozen=True)
class Verdict:
    """The figures of one kind of one model, picture by picture; none where nothing is known to compare with.

    psnr: of the generated views, dB. kind, heading: 1 where they show the right kind of object, and where they also
    face the right way within 45°, else 0. landmarks: mean 3D error of the landmarks that are found on them, % of the
    size.
    """

    psnr: tuple[float, ...] = ()
    kind: tuple[float, ...] = ()
    heading: tuple[float, ...] = ()
    landmarks: tuple[float, ...] = ()


def cases(config: JudgeConfig, size: int) -> list[Case]:
    """Held-out procedural objects, seen from −20° to 60° as in training."""
    specs = [SampleSpec(kind, _JUDGED + i, size) for kind in config.kinds for i in range(config.objects)]
    return [
        Case(s.category, s.category, as_object(s).input_image, s.input_azimuth_deg, as_object(s))
        for s in make_samples(specs)
    ]


def mesh_cases(folder: Path, config: JudgeConfig, size: int) -> list[Case]:
    """Two pictures of each held-out mesh of the kinds, from any heading and from −20° to 60°, in its own colours.

    Raises:
        InputError: as :func:`tiny_model.meshes.mesh_files`.
    """
    found = []
    for kind in (kind for kind in config.kinds if (folder / kind).is_dir()):
        paths = mesh_files(folder, (kind,))[kind]
        kept = held_out([path.stem for path in paths])
        for path in (path for path in paths if path.stem in kept):
            for i in range(2):
                seen = see_mesh(MeshSpec(str(path), kind, _JUDGED + i, size, plain=True))
                views = torch.from_numpy(composite(seen.views)).movedim(-1, 1).float() / 255
                picture = Image.fromarray(composite(seen.input_image, seen.background))
                thing, alike = ObjectViews(path.stem, picture, views), standing(kind, path.stem).symmetry
                azimuth = seen.azimuth_deg if alike else None
                found.append(Case(f"{kind} meshes", kind, picture, azimuth, thing, alike or 1))
    return found


def picture_cases(folder: Path, config: JudgeConfig) -> list[Case]:
    """Cut-out pictures whose file's name says one of the kinds."""
    found = []
    for path in sorted(p for p in folder.iterdir() if p.suffix.lower() in (".png", ".jpg", ".jpeg")):
        words = path.stem.lower()
        said = [kind for word, kind in [*((k, k) for k in config.kinds), *_ALSO.items()] if word in words]
        if said and said[0] in config.kinds:
            thing = ObjectViews(path.stem, load_image(path))
            found.append(Case("pictures", said[0], thing.framed_image, None, None))
    return found


def generated(
    backend: Zero123PlusBackend, shown: Sequence[Case], config: JudgeConfig
) -> list[Float[Tensor, "view 3 size size"]]:
    """The six views of each picture; the noise is the picture's own, whatever the batch and the model."""
    made = []
    for start in range(0, len(shown), config.batch):
        pictures = [case.picture for case in shown[start : start + config.batch]]
        noise = [torch.Generator().manual_seed(start + i) for i in range(len(pictures))]
        grids = backend.generate(pictures, noise, config.steps, config.guidance)
        made += [split_views(grid, backend.layout).movedim(1, 0).cpu() for grid in grids]
    return made


def judge(
    backend: Zero123PlusBackend, shown: Sequence[Case], known: Outlines, config: JudgeConfig
) -> tuple[dict[str, Verdict], list[Float[Tensor, "view 3 size size"]]]:
    """The figures of a model by group of pictures, and the views that it made."""
    views = generated(backend, shown, config)
    tokens = {kind: _tokens(backend, kind, config.probe) for kind in config.kinds} if config.probe else {}
    verdicts = {}
    for group in dict.fromkeys(case.group for case in shown):
        own = [(case, made) for case, made in zip(shown, views, strict=True) if case.group == group]
        like = [likeness(silhouettes(made), known) for _, made in own]
        verdicts[group] = Verdict(
            tuple(psnr(made, c.thing.views) for c, made in own if c.thing and c.thing.views is not None),
            tuple(float(found.kind == case.kind) for found, (case, _) in zip(like, own, strict=True)),
            tuple(
                float(found.kind == case.kind and _faces(found.azimuth_deg, case.azimuth_deg, case.alike))
                for found, (case, _) in zip(like, own, strict=True)
                if case.azimuth_deg is not None
            ),
            tuple(_landmarks(backend, tokens[group], c.thing, made) for c, made in own if group in tokens),
        )
    return verdicts, views


def _faces(found_deg: float, true_deg: float, alike: int) -> bool:
    """Whether two headings are the same but for 45°, or are in turns that look alike."""
    return turned_by(alike * found_deg, alike * true_deg) < alike * _TURNED


def psnr(first: Tensor, second: Tensor) -> float:
    """Peak signal-to-noise ratio of 0…1 pictures, dB."""
    return float(-10 * torch.log10((first - second).square().mean().clamp_min(1e-10)))


def _tokens(backend: Zero123PlusBackend, kind: str, probe: ProbeConfig) -> Tokens:
    return Tokens(fit_tokens(backend, probe_objects(kind, probe, backend.view_size).train, probe).cpu())


def _landmarks(backend: Zero123PlusBackend, tokens: Tokens, thing: ObjectViews | None, views: Tensor) -> float:
    """Mean 3D error, % of the size: the sphere about an object has diameter 1."""
    assert thing is not None
    truth = thing.truth
    assert truth is not None
    assert truth.keypoints_3d is not None
    found = KeypointDetector(backend, tokens).detect_object(ObjectViews(thing.name, thing.input_image, views))
    assert found.keypoints_3d is not None
    away = (found.keypoints_3d.xyz - truth.keypoints_3d).norm(dim=-1)
    return 100 * float(away[truth.known].mean())


def worse(old: Mapping[str, Verdict], new: Mapping[str, Verdict]) -> list[str]:
    """Where the new model is worse than the old one by more than chance, one line each."""
    found = []
    for group, before in old.items():
        for name, sign in _FIGURES.items():
            first, second = getattr(before, name), getattr(new[group], name)
            if not first:
                continue
            better, error = difference(first, second)
            if not sign * better + 2 * error >= 0:
                found.append(
                    f"{group}: {name} {fmean(first):.4g} becomes {fmean(second):.4g} ({better:+.2g} ± {error:.1g})"
                )
    return found


def difference(first: Sequence[float], second: Sequence[float]) -> tuple[float, float]:
    """The mean of what the second has more than the first, picture by picture, and its standard error.

    One picture alone has no error: its difference counts as it is.
    """
    more = np.subtract(second, first)
    error = more.std(ddof=1) / len(more) ** 0.5 if len(more) > 1 else 0.0
    return float(more.mean()), float(error)


def table(verdicts: Mapping[str, Mapping[str, Verdict]]) -> str:
    """Markdown: a row for each group, with a column for each figure of each model, in their order.

    Two models: behind them the mean difference of the pictures and its standard error, where there are two or more.
    """
    groups = list(next(iter(verdicts.values())))
    lines = ["| | pictures | PSNR, dB | right kind | right heading | 3D landmarks, % |", "|---|---|---|---|---|---|"]
    for group in groups:
        rows = [by_group[group] for by_group in verdicts.values()]
        cells = [_cell([getattr(row, name) for row in rows], name) for name in _FIGURES]
        lines.append(f"| {group} | {len(rows[0].kind)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(values: Sequence[Sequence[float]], name: str) -> str:
    if not values[0]:
        return "–"
    if name in ("kind", "heading"):
        said = ", ".join(f"{sum(value):.0f}" for value in values)
        return f"{said} of {len(values[0])}"
    form = ".2f" if name == "psnr" else ".1f"
    said = ", ".join(format(fmean(value), form) for value in values)
    if len(values) == 1 or len(values[0]) < 2:
        return said
    better, error = difference(*values)
    return f"{said} ({better:+{form}} ± {error:{form}})"


def _sheet(shown: Sequence[Case], made: Mapping[str, Sequence[Tensor]], size: int) -> Image.Image:
    """A row for each picture: the input, the true views where there are some, and each model's."""
    rows = []
    for i, case in enumerate(shown):
        source = to_tensor(case.picture.resize((size, size)))[0]
        true = (
            torch.full((6, 3, size, size), GREY) if case.thing is None or case.thing.views is None else case.thing.views
        )
        for line in (true, *(views[i] for views in made.values())):
            rows.append(np.concatenate([to_uint8(source), *map(to_uint8, line)], axis=1))
    return Image.fromarray(np.concatenate(rows))


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def main(
    old: Annotated[Path, typer.Argument(help="The model that ships: a folder.")],
    new: Annotated[Path | None, typer.Argument(help="The model that may replace it; without it, OLD alone.")] = None,
    kinds: Annotated[str, typer.Option(help="With commas.")] = ",".join(JudgeConfig.kinds),
    objects: Annotated[int, typer.Option(help="Of each kind; 16 of four kinds are 64 pictures.")] = 16,
    probe_objects: Annotated[
        int, typer.Option(help="Objects on which tokens are fitted to landmarks; 0: landmarks are not judged.")
    ] = 60,
    meshes: Annotated[Path | None, typer.Option(help="A folder of meshes by kind: those held out are judged.")] = None,
    pictures: Annotated[Path | None, typer.Option(help="A folder of cut-outs whose names say their kind.")] = None,
    steps: Annotated[int, typer.Option(help="Of sampling.")] = STEPS,
    threads: int = 2,
    sheet: Annotated[Path | None, typer.Option(help="A picture of all that was made.")] = None,
    out: Annotated[Path | None, typer.Option("--json", help="The figures as a file.")] = None,
) -> None:
    """Compare two models on what neither has seen; the exit status is 1 where the new one is worse."""
    torch.set_num_threads(threads)
    names = tuple(kinds.split(","))
    if unknown := [name for name in names if name not in CATEGORIES]:
        raise InputError(f"no category {', '.join(unknown)}; known are: {', '.join(CATEGORIES)}")
    probe = ProbeConfig(train_objects=probe_objects, test_objects=0) if probe_objects else None
    config = JudgeConfig(names, objects, probe, steps)
    known, found, made = known_outlines(names), dict[str, dict[str, Verdict]](), dict[str, list[Any]]()
    shown: list[Case] = []
    for name, folder in (("old", old), ("new", new)):
        if folder is None:
            continue
        backend = load_zero123plus(folder, AUTO)
        if not shown:
            shown = cases(config, backend.view_size)
            shown += mesh_cases(meshes, config, backend.view_size) if meshes else []
            shown += picture_cases(pictures, config) if pictures else []
        found[name], made[name] = judge(backend, shown, known, config)
    sys.stdout.write(table(found) + "\n")
    if sheet is not None:
        _sheet(shown, made, shown[0].thing.views.shape[-1] if shown[0].thing else 64).save(sheet)  # type: ignore[union-attr]
    if out is not None:
        plain = {name: {group: vars(one) for group, one in groups.items()} for name, groups in found.items()}
        write_text(out, json.dumps(plain, indent=2) + "\n")
    if new is not None:
        against = worse(found["old"], found["new"])
        if (size := _size(new)) > MOST_BYTES:
            against.append(f"{new} has {size:,} bytes; {MOST_BYTES:,} may ship")
        if against:
            sys.stdout.write("Not to be shipped:\n" + "".join(f"- {line}\n" for line in against))
            raise typer.Exit(1)
        sys.stdout.write("Nowhere worse by more than chance: it may ship.\n")


if __name__ == "__main__":
    run("judge", main)
