"""Files that are written whole."""

import os
from contextlib import nullcontext

import pytest
import torch

from keyorbit.errors import InputError
from keyorbit.storage.checkpoint import save_checkpoint
from keyorbit.storage.files import as_new, folder_for
from keyorbit.storage.outputs import OBJECT, replaced_folder


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_tensors_can_be_read_by_whoever_may_read_new_files(umask, mode, tmp_path):
    """safetensors writes for the file's owner alone, and a run may be a group's."""
    before = os.umask(umask)
    try:
        save_checkpoint(tmp_path / "a.safetensors", {"a": torch.zeros(2)}, {})
        with replaced_folder(tmp_path / "out", OBJECT) as partial:
            os.close(os.open(partial / "b.safetensors", os.O_CREAT, 0o600))
            (partial / "c.txt").touch()
    finally:
        os.umask(before)
    found = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.rglob("*.*") if path.suffix != ".json"}
    assert found == {"a.safetensors": mode, "b.safetensors": mode, "c.txt": mode}


def test_what_is_linked_from_elsewhere_keeps_its_permissions(tmp_path):
    (tmp_path / "a").touch(0o600)
    os.link(tmp_path / "a", tmp_path / "b")
    (tmp_path / "c").symlink_to("a")
    for name in ("b", "c"):
        as_new(tmp_path / name, 0o644)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize("written", [False, True])
@pytest.mark.parametrize("fails", [False, True])
def test_only_a_new_folder_in_which_nothing_came_is_removed_again(tmp_path, there, written, fails):
    folder = tmp_path / "out"
    if there:
        folder.mkdir()
    with pytest.raises(InputError) if fails else nullcontext(), folder_for(folder):
        if written:
            (folder / "a").touch()
        if fails:
            raise InputError("no")
    assert folder.exists() == (there or written)
