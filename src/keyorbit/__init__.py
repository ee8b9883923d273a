"""Keypoints, named and in 3D, from the cross-attention of multi-view diffusion; no labels."""

from importlib import import_module
from typing import Any

# Where each public name is defined. Its module is imported at the first use of the name: `import keyorbit` alone does
# not load torch. Editors and mypy read the same names from __init__.pyi.
_MODULES = {
    "keyorbit.detection.confidence": ("Confidence",),
    "keyorbit.detection.config": ("DetectConfig",),
    "keyorbit.detection.detector": ("KeypointDetector",),
    "keyorbit.detection.found": ("Detection",),
    "keyorbit.detection.marking": ("Marked", "mark"),
    "keyorbit.diffusion.attention": ("capture_attention",),
    "keyorbit.diffusion.backends.loading": ("load_backend",),
    "keyorbit.diffusion.config": ("PrepareConfig",),
    "keyorbit.diffusion.maps": ("view_maps",),
    "keyorbit.diffusion.tokens": ("Tokens",),
    "keyorbit.discovery.cache.build": ("build_cache",),
    "keyorbit.discovery.cache.disk": ("open_cache",),
    "keyorbit.discovery.cache.index": ("plan_cache",),
    "keyorbit.discovery.config": ("DiscoverConfig",),
    "keyorbit.discovery.discover": ("discover", "discover_cached"),
    "keyorbit.discovery.marks_config": ("MarkConfig",),
    "keyorbit.discovery.objective": ("LossWeights", "SingleViewWeights"),
    "keyorbit.errors": ("InputError",),
    "keyorbit.evaluation.evaluate": ("Evaluation", "evaluate"),
    "keyorbit.geometry.cameras": ("Cameras", "orbit_cameras"),
    "keyorbit.geometry.keypoints": ("Keypoints2D", "Keypoints3D"),
    "keyorbit.geometry.rigs": ("Rig", "known_rigs", "rig", "zero123plus_cameras"),
    "keyorbit.geometry.triangulation": ("triangulate",),
    "keyorbit.geometry.views": ("Layout", "merge_views", "split_views"),
    "keyorbit.objects.dataset": ("ObjectViews", "load_dataset"),
    "keyorbit.objects.marks": ("Mark", "read_marks", "write_marks"),
    "keyorbit.synthetic.meshes.views": ("load_meshes",),
    "keyorbit.training.config": ("TrainConfig",),
    "keyorbit.training.step": ("training_step",),
    "keyorbit.training.train": ("train",),
}
# These two are modules themselves.
_PUBLIC_MODULES = {"losses": "keyorbit.discovery.losses", "metrics": "keyorbit.evaluation.metrics"}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}

__all__ = sorted([*_HOMES, *_PUBLIC_MODULES])


def __getattr__(name: str) -> Any:
    if name in _PUBLIC_MODULES:
        value = import_module(_PUBLIC_MODULES[name])
    elif name in _HOMES:
        value = getattr(import_module(_HOMES[name]), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value  # the next use does not come here
    return value


def __dir__() -> list[str]:
    return sorted({*(name for name in globals() if name.startswith("__")), *__all__})
