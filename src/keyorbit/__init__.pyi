"""Types of the public names; __init__.py imports each at its first use."""

from keyorbit.detection.confidence import Confidence
from keyorbit.detection.config import DetectConfig
from keyorbit.detection.detector import KeypointDetector
from keyorbit.detection.found import Detection
from keyorbit.detection.marking import Marked, mark
from keyorbit.diffusion.attention import capture_attention
from keyorbit.diffusion.backends.loading import load_backend
from keyorbit.diffusion.config import PrepareConfig
from keyorbit.diffusion.maps import view_maps
from keyorbit.diffusion.tokens import Tokens
from keyorbit.discovery import losses
from keyorbit.discovery.cache.build import build_cache
from keyorbit.discovery.cache.disk import open_cache
from keyorbit.discovery.cache.index import plan_cache
from keyorbit.discovery.config import DiscoverConfig
from keyorbit.discovery.discover import discover, discover_cached
from keyorbit.discovery.marks_config import MarkConfig
from keyorbit.discovery.weights import LossWeights, SingleViewWeights
from keyorbit.errors import InputError
from keyorbit.evaluation import metrics
from keyorbit.evaluation.evaluate import Evaluation, evaluate
from keyorbit.geometry.cameras import Cameras, orbit_cameras
from keyorbit.geometry.keypoints import Keypoints2D, Keypoints3D
from keyorbit.geometry.rigs import Rig, known_rigs, rig, zero123plus_cameras
from keyorbit.geometry.triangulation import triangulate
from keyorbit.geometry.views import Layout, merge_views, split_views
from keyorbit.objects.dataset import ObjectViews, load_dataset
from keyorbit.objects.marks import Mark, read_marks, write_marks
from keyorbit.synthetic.meshes.views import load_meshes
from keyorbit.training.config import TrainConfig
from keyorbit.training.step import training_step
from keyorbit.training.train import train

__all__ = [
    "Cameras",
    "Confidence",
    "DetectConfig",
    "Detection",
    "DiscoverConfig",
    "Evaluation",
    "InputError",
    "KeypointDetector",
    "Keypoints2D",
    "Keypoints3D",
    "Layout",
    "LossWeights",
    "Mark",
    "MarkConfig",
    "Marked",
    "ObjectViews",
    "PrepareConfig",
    "Rig",
    "SingleViewWeights",
    "Tokens",
    "TrainConfig",
    "build_cache",
    "capture_attention",
    "discover",
    "discover_cached",
    "evaluate",
    "known_rigs",
    "load_backend",
    "load_dataset",
    "load_meshes",
    "losses",
    "mark",
    "merge_views",
    "metrics",
    "open_cache",
    "orbit_cameras",
    "plan_cache",
    "read_marks",
    "rig",
    "split_views",
    "train",
    "training_step",
    "triangulate",
    "view_maps",
    "write_marks",
    "zero123plus_cameras",
]
