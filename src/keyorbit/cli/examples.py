"""Calls that every command's help shows. A test parses them all."""

EXAMPLES: dict[str, tuple[str, ...]] = {
    "demo": ("keyorbit demo --quick", "keyorbit demo --out first-look"),
    "doctor": ("keyorbit doctor", "keyorbit doctor --json - --no-test"),
    "generate": (
        "keyorbit generate chair.png --out views",
        "keyorbit generate 'photos/*.jpg' --model sudo-ai/zero123plus-v1.2 --out views --num 4",
    ),
    "discover": (
        "keyorbit discover chairs --out run",
        "keyorbit discover photos --out run --tokens 8 --steps 200 --seed 1",
        "keyorbit discover --cache cache --out run --resume",
    ),
    "cache": ("keyorbit cache chairs --out cache", "keyorbit cache chairs --out cache --store float16 --noises 1"),
    "train": (
        "keyorbit train chairs --out trained --train tokens --steps 200",
        "keyorbit train chairs --out trained --tokens run --train lora --resume",
    ),
    "detect": (
        "keyorbit detect chair.png",
        "keyorbit detect fox.png --kind animal --json -",
        "keyorbit detect run 'photos/*.jpg' --out found --format json,csv",
        "ls photos/*.jpg | keyorbit detect run - --out found",
        "keyorbit detect run --views photos --cameras sparse/0 --out found",
        "keyorbit detect run 'objects/*' --out found --per-object none --engine ray --workers 4",
    ),
    "evaluate": (
        "keyorbit evaluate run test --fit train --json scores.json",
        "keyorbit evaluate run 'test/*' --generate --out measured",
        "keyorbit evaluate run test --fit train --out measured --engine ray --workers 4",
    ),
    "name": (
        "keyorbit name run",
        "keyorbit name run --kind chair",
        "keyorbit name run --words words.txt --json names.json",
    ),
    "mark": (
        "keyorbit mark chair --points points.json --out run",
        "keyorbit mark chairs --coco coco.json --out run --run discovered --keep",
    ),
    "protocol stablekeypoints": (
        "keyorbit protocol stablekeypoints --dataset taichi --data taichi --model stable-diffusion-v1-5 --out run",
    ),
    "report": ("keyorbit report run", "keyorbit report run test --scores scores.json --out page.html"),
    "app": ("keyorbit app", "keyorbit app run --host 0.0.0.0 --port 7860"),
    "annotate": (
        "keyorbit annotate chairs --run run",
        "keyorbit annotate chairs --run run --export annotations --all",
    ),
    "inspect": ("keyorbit inspect", "keyorbit inspect --model zero123plus-v1.2 --json shapes.json"),
    "convert": ("keyorbit convert unet.bin unet.safetensors", "keyorbit convert old-model new-model"),
    "dataset make": (
        "keyorbit dataset make chairs --objects 60",
        "keyorbit dataset make cars --category car --seed 2 --workers 4",
    ),
    "dataset render": (
        "keyorbit dataset render chair.glb --out chair",
        "keyorbit dataset render 'meshes/*.obj' --out objects --up y --workers 4",
        "keyorbit dataset render meshes --out objects --engine ray --workers 1-64",
    ),
    "dataset pack": (
        "keyorbit dataset pack chairs --out shards",
        "keyorbit dataset pack 'photos/*.jpg' --out s3://bucket/photos --per-shard 5000",
        "keyorbit dataset pack chairs --out parquet --format parquet",
    ),
    "dataset list": ("keyorbit dataset list", "keyorbit dataset list chairs"),
}


def epilog(name: str) -> str:
    """What stands at the end of a command's help: its examples, each on a line."""
    return "\n\n".join(["Examples:", *EXAMPLES[name], "-q and -v may stand here too: less, or more, of what is told."])
