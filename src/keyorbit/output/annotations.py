"""Write annotated pictures as the files that annotation tools import."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from keyorbit.output.choices import ANNOTATIONS, Edge
from keyorbit.output.coco import coco_dict
from keyorbit.output.cvat import cvat_labels, cvat_xml
from keyorbit.output.label_studio import label_studio_config, label_studio_tasks
from keyorbit.output.palette import palette
from keyorbit.output.pictured import Pictured
from keyorbit.storage.files import make_folder, write_bytes, write_json, write_text
from keyorbit.storage.outputs import replaced_folder

# Of annotated pictures, below the folder of the annotations: where CVAT, Datumaro and Label Studio put them.
IMAGES = "images"


def write_annotations(
    folder: Path,
    items: Sequence[Pictured],
    formats: Sequence[str],
    names: Sequence[str],
    skeleton: Sequence[Edge] = (),
    place: str = "",
) -> None:
    """Write what annotation tools import, of those formats that are theirs.

    cvat: ``cvat.xml``, "CVAT for images 1.1", and ``cvat_labels.json`` for the constructor of labels; labelstudio:
    ``label_studio.json``, the tasks, and ``label_studio.xml``, the labelling interface. ``place`` is where the pictures
    are in Label Studio's document root, with a slash at the end. Default: in the root itself.

    Raises:
        InputError: a file cannot be written.
    """
    colors = palette(len(names))
    if "cvat" in formats:
        write_text(folder / "cvat.xml", cvat_xml(items, names, colors, skeleton))
        write_text(folder / "cvat_labels.json", cvat_labels(items, names, colors, skeleton))
    if "labelstudio" in formats:
        write_json(folder / "label_studio.json", label_studio_tasks(items, names, place))
        write_text(folder / "label_studio.xml", label_studio_config(names, colors))


def write_annotated(
    folder: Path,
    items: Sequence[Pictured],
    pictures: Mapping[str, bytes],
    names: Sequence[str],
    overwrite: bool = False,
) -> None:
    """Write annotated pictures for other tools: the pictures in ``images``, and files of COCO, CVAT and Label Studio.

    Args:
        folder: where they go.
        items: the keypoints on each picture.
        pictures: the pictures as PNG, by their files' names.
        names: of the keypoints.
        overwrite: replace what an earlier call wrote there. Default False.

    Raises:
        InputError: as :func:`keyorbit.storage.outputs.replaced_folder`.
    """
    with replaced_folder(folder, ANNOTATIONS, overwrite) as partial:
        write_json(partial / "coco.json", coco_dict(items, len(names), (), names))
        write_annotations(partial, items, ("cvat", "labelstudio"), names, place=f"{IMAGES}/")
        images = make_folder(partial / IMAGES)
        for name, content in pictures.items():
            write_bytes(images / name, content)
