"""What joint training does to keypoints and to views: ``python benchmarks/training.py --out FOLDER``.

Tokens are discovered on the training objects. From them and the model as it is, the same training runs with the
keypoint losses' weights times 0, 1 and more. Every state is judged on objects that neither has seen: keypoints as in
benchmarks/quality.py, views against the true ones by PSNR and SSIM, and the v-prediction loss at fixed noise.
Run it again to go on where it was stopped. LPIPS is left out: no package has its network's weights in itself.
"""

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

import keyorbit as ko
from keyorbit.diffusion.backends.zero123plus import Zero123PlusBackend
from keyorbit.objects.dataset import Objects
from keyorbit.training.config import Terms
from keyorbit.training.step import alphas, velocity
from quality import FIELDS, World, judge, split
from shared_work import SharedWork

SHOWN = {
    "landmark_3d": ("3D landmarks, % of size ↓", 100),
    "reprojection": ("reprojection, % of side ↓", 100),
    "dual_alignment": ("dual alignment ↑", 1),
    "on_object": ("on the object, % ↑", 100),
    "psnr": ("PSNR, dB ↑", 1),
    "ssim": ("SSIM ↑", 1),
    "v_loss": ("v loss ↓", 1),
}


@torch.no_grad()
def judge_views(
    backend: Zero123PlusBackend, tokens: torch.Tensor, objects: Objects, steps: int, guidance: float
) -> dict[str, float]:
    """Views generated from the input picture alone, with the tokens in the softmax, against the true ones."""
    scores: dict[str, list[float]] = {"psnr": [], "ssim": [], "v_loss": []}
    for i, thing in enumerate(objects):
        assert thing.views is not None
        generator = torch.Generator().manual_seed(i)
        grid = backend.generate([thing.input_image], generator, steps, guidance, tokens=tokens)[0]
        views = ko.split_views(grid, backend.layout).movedim(1, 0)
        scores["psnr"].append(float(ko.metrics.psnr(views, thing.views).mean()))
        scores["ssim"].append(float(ko.metrics.ssim(views, thing.views).mean()))
        scores["v_loss"].append(v_loss(backend, tokens, thing, generator))
    return {name: sum(values) / len(values) for name, values in scores.items()}


def v_loss(
    backend: Zero123PlusBackend, tokens: torch.Tensor, thing: ko.ObjectViews, generator: torch.Generator
) -> float:
    """Squared error of the v-prediction on the true views, over four timesteps."""
    assert thing.views is not None
    timestep = torch.tensor([125, 375, 625, 875])
    grid = ko.merge_views(thing.views.movedim(0, 1), backend.layout)
    clean = backend.encode_images(grid[None]).expand(4, -1, -1, -1)
    condition = backend.encode_condition([thing.input_image]).repeat(4)
    noise = torch.randn(clean.shape, generator=generator)
    condition_noise = torch.randn(condition.latent.shape, generator=generator)
    noised = backend.add_noise(clean, noise, timestep)
    context = ko.Tokens(tokens).append_to(condition.context)
    found = backend.denoise(noised, timestep, context, condition.latent, condition_noise)
    return float((found - velocity(clean, noise, alphas(backend.parts.scheduler, timestep))).square().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--category", default="chair")
    parser.add_argument("--train", type=int, default=24, help="objects")
    parser.add_argument("--test", type=int, default=10, help="objects that keypoints are judged on")
    parser.add_argument("--views", type=int, default=6, help="of them, objects whose views are generated")
    parser.add_argument("--discover", type=int, default=150, help="steps before, in isolated mode")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--what", default="full", help="tokens, lora or full")
    parser.add_argument("--unet-rate", type=float, default=1e-4)
    parser.add_argument("--keypoint", type=float, nargs="+", default=[0.0, 1.0, 10.0])
    parser.add_argument("--sample-steps", type=int, default=12)
    parser.add_argument("--guidance", type=float, default=4.0)
    args = parser.parse_args()
    console = Console()
    args.out.mkdir(parents=True, exist_ok=True)
    results: Path = args.out / "results.json"
    rows = json.loads(results.read_text(encoding="utf-8")) if results.is_file() else {}
    backend = ko.load_backend(args.model, dtype="float32")
    train = split(args.category, "train", args.train, backend.view_size, 1)
    test = split(args.category, "test", args.test, backend.view_size, 1)
    start = args.out / "tokens.safetensors"
    if not start.is_file():
        config = ko.DiscoverConfig(steps=args.discover)
        ko.discover(backend, train, config, args.out / "discover", resume=True).save(start)
    tokens = ko.Tokens.load(start)

    world = World(args.category, backend, backend, train, test, args.train, SharedWork())

    def judged(name: str, model: Zero123PlusBackend, found: ko.Tokens, seconds: float) -> None:
        scores = judge(world, found, model)
        views = judge_views(model, found.embedding.detach(), test[: args.views], args.sample_steps, args.guidance)
        rows[name] = {key: scores[key] for key in FIELDS} | views | {"seconds": seconds}
        results.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
        console.print(name, rows[name])

    if "before" not in rows:
        judged("before", backend, tokens, 0.0)
    for weight in args.keypoint:
        name = f"λ = {weight:g}"
        if name in rows:
            continue
        config = ko.TrainConfig(
            train=args.what,
            steps=args.steps,
            batch=args.batch,
            accumulate=1,
            tokens_first=0.0,
            terms=Terms(keypoint=weight),
            token_rate=0.005,
            unet_rate=args.unet_rate,
            warmup=args.steps // 10,
            average=0.9,
            save_every=10,
        )
        began = time.monotonic()
        folder = args.out / f"keypoint_{weight:g}"
        model = ko.load_backend(args.model, dtype="float32")
        found = ko.train(model, train, config, folder, tokens, resume=True)
        (folder / "config.json").write_text(json.dumps(asdict(config), indent=1) + "\n", encoding="utf-8")
        stored = ko.Tokens.load(folder / "tokens.safetensors")
        assert torch.equal(stored.embedding, found.embedding)
        judged(name, ko.load_backend(stored.info.model), stored, time.monotonic() - began)
    table = Table("", *(label for label, _ in SHOWN.values()), "minutes")
    for name, row in rows.items():
        cells = [f"{factor * row[key]:.3f}" for key, (_, factor) in SHOWN.items()]
        table.add_row(name, *cells, f"{row['seconds'] / 60:.1f}")
    console.print(table)


if __name__ == "__main__":
    main()
