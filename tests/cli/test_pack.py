"""`dataset pack`, and commands on what it wrote: the same results as on folders, stopped and gone on with."""

import io
import json
import os
import shutil
import tracemalloc
import zipfile
from pathlib import Path

import pytest
import torch
import trimesh
from PIL import Image

from helpers.disk import contents
from helpers.shards import in_memory, picture, write_tar
from keyorbit.cli.work import several
from keyorbit.cli.work.several import Several
from keyorbit.cli.work.sharing import shared
from keyorbit.cli.work.turns import Writing, _share
from keyorbit.discovery.config import DiscoverConfig
from keyorbit.discovery.initial import untrained
from keyorbit.errors import InputError
from keyorbit.objects.dataset import load_dataset, read_source
from keyorbit.objects.shards import writing
from keyorbit.objects.shards.tar import scanned, tar_entries
from keyorbit.objects.sources import ObjectSource, object_sources
from keyorbit.ranks import Ranks


@pytest.fixture(params=["tar", "parquet"])
def kind(request):
    if request.param == "parquet":
        pytest.importorskip("pyarrow")
    return request.param


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def same(one, other):
    """Whether two objects are the same in all that is read of them."""
    assert one.name == other.name
    assert one.input_image.tobytes() == other.input_image.tobytes()
    assert (one.views is None) == (other.views is None)
    if one.views is not None:
        assert torch.equal(one.views, other.views)
        assert torch.equal(one.masks, other.masks)
        assert torch.equal(one.cameras.world_to_camera, other.cameras.world_to_camera)
        assert torch.equal(one.truth.keypoints_3d, other.truth.keypoints_3d)
    return True


def files_of(folder):
    """The files of all objects in a folder of shards, by name."""
    return {source.name: source.files() for source in object_sources([folder])}


def test_what_is_packed_is_read_as_it_was_byte_for_byte(kind, chairs, tmp_path, command):
    assert command("dataset", "pack", chairs, "--out", tmp_path / "out", "--format", kind, "--per-shard", 2) == 0
    shards = [f"objects-{n:06d}" for n in range(2)]
    index = [f"{name}.idx" for name in shards] if kind == "tar" else []
    assert {path.name for path in (tmp_path / "out").iterdir()} == {*index, *(f"{name}.{kind}" for name in shards)}
    before = {folder.name: {path.name: path.read_bytes() for path in folder.iterdir()} for folder in chairs.iterdir()}
    before = {name: {n: data for n, data in files.items() if not n.startswith(".")} for name, files in before.items()}
    assert files_of(tmp_path / "out") == before
    for one, other in zip(load_dataset(chairs), load_dataset(tmp_path / "out"), strict=True):
        same(one, other)
    # And once more into the other format, and back.
    again = {"tar": "parquet", "parquet": "tar"}[kind]
    assert command("dataset", "pack", tmp_path / "out", "--out", tmp_path / "again", "--format", again) == 0
    assert files_of(tmp_path / "again") == before


def test_an_index_says_what_the_headers_say(chairs, tmp_path, command):
    long = tmp_path / f"{'n' * 150}.png"
    long.write_bytes(picture())
    assert command("dataset", "pack", chairs, long, "--out", tmp_path / "out") == 0
    path = tmp_path / "out" / "objects-000000.tar"
    first, *lines = path.with_suffix(".idx").read_text().splitlines()
    assert (first, len(lines)) == ("v1.2 4", 4)
    assert list(tar_entries(path)) == scanned(path)
    assert read_source(object_sources([path])[-1]).name == "n" * 150


def test_the_same_objects_make_the_same_bytes(kind, chairs, tmp_path, command):
    copy = shutil.copytree(chairs, tmp_path / "copy")
    for place, out in ((chairs, "a"), (copy, "b")):
        assert command("dataset", "pack", place, "--out", tmp_path / out, "--format", kind) == 0
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_pictures_keep_their_bytes_and_awkward_names_become_keys(kind, tmp_path, command):
    names = ("IMG 1.2024.JPG", "img_1_2024.png", "fox.webp", "..a.png", "ä.png")
    (tmp_path / "p").mkdir()
    for number, name in enumerate(names):
        kinds = {".JPG": "JPEG", ".webp": "WEBP"}
        (tmp_path / "p" / name).write_bytes(picture(number, kinds.get(Path(name).suffix, "PNG")))
    paths = sorted((tmp_path / "p").iterdir())
    assert command("dataset", "pack", *paths, "--out", tmp_path / "out", "--format", kind) == 0
    found = files_of(tmp_path / "out")
    assert set(found) == {"IMG_1_2024", "img_1_2024_2", "fox", "__a", "ä"} or len(found) == 5
    assert sorted(data for files in found.values() for data in files.values()) == sorted(p.read_bytes() for p in paths)
    for thing in load_dataset(tmp_path / "out"):
        assert thing.input_image.size == (24, 24)


def test_names_that_an_index_could_not_hold_are_changed(kind, chairs, tmp_path, command):
    (first, *_), out = sorted(chairs.iterdir()), tmp_path / "out"
    for name in ("__meta__", "______", "my chair"):
        shutil.copytree(first, tmp_path / "few" / name)
    for name in ("my notes.txt", "a b c d", os.fsdecode(b"\xff.txt"), "view 9.png"):
        (tmp_path / "few" / "my chair" / name).write_bytes(b"x")
    assert command("dataset", "pack", tmp_path / "few", "--out", out, "--format", kind) == 0
    for index in (*out.glob("*.idx"), None):  # by the index, and by the headers
        found = files_of(out)
        assert set(found) == {"_meta__", "_", "my_chair"}
        assert {"cond.png", "meta.json"} < found["my_chair"].keys()
        assert not any(name.startswith("view_9") for name in found["my_chair"])
        if index is not None:
            index.unlink()


def test_capitals_in_the_names_of_others_are_read_and_packed(kind, chairs, tmp_path, command):
    (first, *_), shard = sorted(chairs.iterdir()), tmp_path / "capitals.tar"
    files = {name: (first / name).read_bytes() for name in ("cond.png", "meta.json")}
    write_tar(shard, [(f"k.{name.upper()}", data) for name, data in files.items()])
    assert command("dataset", "pack", shard, "--out", tmp_path / "out", "--format", kind) == 0
    assert files_of(tmp_path / "out") == {"k": files}


def test_what_is_no_object_is_refused_and_not_packed(kind, chairs, tmp_path, command, capsys):
    first = shutil.copytree(sorted(chairs.iterdir())[0], tmp_path / "few" / "a")
    (first / "cond.png").unlink()
    assert command("dataset", "pack", tmp_path / "few", "--out", tmp_path / "out", "--format", kind) == 2
    assert "holds meta.json, and no cond.png" in capsys.readouterr().err
    if kind == "parquet":
        arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        parquet.write_table(arrow.table({"image": arrow.array([None], arrow.binary())}), tmp_path / "empty.parquet")
        assert command("dataset", "pack", tmp_path / "empty.parquet", "--out", tmp_path / "out", "--format", kind) == 2
        assert "holds no picture and no mesh" in capsys.readouterr().err
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_shards_are_not_replaced_by_what_is_packed_of_them(kind, chairs, tmp_path, command, capsys, monkeypatch):
    out = tmp_path / "out"
    assert command("dataset", "pack", chairs, "--out", out, "--format", kind, "--per-shard", 1) == 0
    (tmp_path / "link").symlink_to(out)
    before = contents(out)
    monkeypatch.chdir(tmp_path)
    last = out / f"objects-000002.{kind}"
    for given, place in (("out", out), (last, out), (last, "link"), (f"file://{out}", "out")):
        words = ["dataset", "pack", given, "--out", place, "--format", kind, "--overwrite"]
        assert command(*words) == 2
        assert "holds the shards that are to be packed anew: give another --out or --prefix" in capsys.readouterr().err
        assert contents(out) == before


def test_meshes_go_with_what_they_name(kind, tmp_path, command, caplog):
    folder = tmp_path / "meshes"
    folder.mkdir()
    trimesh.creation.box((1, 2, 0.5)).export(folder / "box.glb")
    ball = trimesh.creation.icosphere(1)
    texture = Image.effect_noise((8, 8), 50).convert("RGB")
    ball.visual = trimesh.visual.TextureVisuals(uv=ball.vertices[:, :2], image=texture)
    ball.export(folder / "ball.obj")
    (folder / "box.keypoints.json").write_text('{"keypoints": {"top": [0, 1, 0], "low": [0, -1, 0]}, "up": "y"}')
    out = tmp_path / "out"
    assert command("dataset", "pack", folder / "*.glb", folder / "*.obj", "--out", out, "--format", kind) == 0
    found = files_of(out)
    assert {name: set(files) for name, files in found.items()} == {
        "box": {"mesh.glb", "keypoints.json"},
        "ball": {"mesh.zip"},
    }
    assert found["box"]["mesh.glb"] == (folder / "box.glb").read_bytes()
    with zipfile.ZipFile(io.BytesIO(found["ball"]["mesh.zip"])) as packed:
        assert {info.filename: packed.read(info) for info in packed.infolist()} == {
            path.name: path.read_bytes() for path in folder.iterdir() if path.name.startswith(("ball", "mat"))
        }
    # Rendered they are the same; and what is there stays.
    for given, place in (([out], "a"), ([out], "a"), ([folder], "b")):
        words = ["dataset", "render", *given, "--size", 16, "--up", "y", "--out", tmp_path / place]
        assert command(*words) == 0
    for name in ("ball", "box"):
        one, other = (load_dataset(tmp_path / place / name)[0] for place in "ab")
        assert one.input_image.tobytes() == other.input_image.tobytes()
        assert torch.equal(one.views, other.views)
    assert load_dataset(tmp_path / "a" / "box")[0].truth.names == ("top", "low")


def test_a_shard_is_whole_or_not_there_and_the_same_command_goes_on(kind, chairs, tmp_path, command, monkeypatch):
    words = ["dataset", "pack", chairs, "--format", kind, "--per-shard", 1, "--out"]
    assert command(*words, tmp_path / "whole") == 0
    packing, done = writing._write_tar if kind == "tar" else writing._write_parquet, []

    def stopped(*given):
        if len(done) == 1:
            raise KeyboardInterrupt
        done.append(given)
        return packing(*given)

    with monkeypatch.context() as patch:
        patch.setattr(writing, packing.__name__, stopped)
        assert command(*words, tmp_path / "out") == 130
    assert {path.name.partition(".")[0] for path in (tmp_path / "out").iterdir()} == {"objects-000000"}
    stamp = (tmp_path / "out" / f"objects-000000.{kind}").stat().st_mtime_ns
    if kind == "tar":  # as a process leaves it that is killed before it wrote the index
        shutil.copy(tmp_path / "whole" / "objects-000002.tar", tmp_path / "out" / "objects-000001.tar")
    assert command(*words, tmp_path / "out") == 0
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert (tmp_path / "out" / f"objects-000000.{kind}").stat().st_mtime_ns == stamp


def broken(*_):
    raise InputError("the disk is full")


def test_shards_of_other_objects_are_not_mixed_in(kind, chairs, tmp_path, command, capsys, monkeypatch):
    out, words = tmp_path / "out", ["dataset", "pack", "--format", kind, "--out", tmp_path / "out"]
    assert command(*words, chairs, "--per-shard", 1) == 0
    before = contents(out)
    assert command(*words, chairs) == 2
    assert "is a shard of another packing under this name" in capsys.readouterr().err
    (tmp_path / "a.png").write_bytes(picture())
    for name in ("b", "c"):
        shutil.copy(tmp_path / "a.png", tmp_path / f"{name}.png")
    assert command(*words, *(tmp_path / f"{name}.png" for name in "abc"), "--per-shard", 1) == 2
    assert "is a shard of other objects" in capsys.readouterr().err
    assert command(*words, out, "--overwrite") == 2
    assert "holds the shards that are to be packed anew" in capsys.readouterr().err
    assert contents(out) == before
    with monkeypatch.context() as patch:
        patch.setattr("keyorbit.objects.shards.packing.packed_files", broken)
        assert command(*words, chairs, "--overwrite") == 2
    kept = contents(out)  # nothing is lost before the new ones are whole, but an index, which is made again
    assert {name: data for name, data in before.items() if not name.endswith(".idx")}.items() <= kept.items()
    assert command(*words, chairs, "--overwrite") == 0
    assert len(list(out.glob(f"*.{kind}"))) == 1
    for given in (["--prefix", "a/b"], ["--prefix", ".."], ["--per-shard", 0], ["--format", "zip"]):
        assert command(*words, chairs, *given) == 2


def test_shards_are_written_to_an_address(kind, chairs, tmp_path, command, capsys):
    out = f"memory://packed-{kind}-{tmp_path.name}"
    words = ["dataset", "pack", chairs, "--out", out, "--format", kind, "--per-shard", 2]
    assert command(*words) == 0
    assert command(*words) == 0
    assert f"3 objects in 2 shards in {out} (2 of them were there already)" in capsys.readouterr().out
    for one, other in zip(load_dataset(chairs), load_dataset(out), strict=True):
        same(one, other)
    assert command(*words[:-1], 3) == 2
    assert command(*words[:-1], 3, "--overwrite") == 0
    assert len(list(load_dataset(out))) == 3


class TestDetect:
    """`detect` and its siblings on shards."""

    @pytest.fixture(scope="class")
    def tokens(self, backend, tmp_path_factory):
        path = tmp_path_factory.mktemp("tokens") / "tokens.safetensors"
        untrained(backend, DiscoverConfig(num_tokens=3, num_candidates=3)).save(path)
        return path

    @pytest.fixture(autouse=True)
    def loaded(self, backend, monkeypatch):
        monkeypatch.setattr("keyorbit.cli.work.loading.load_backend_of", lambda *_: backend)
        monkeypatch.setattr("keyorbit.cli.work.loading.load_backend", lambda *_: backend)

    @pytest.fixture
    def words(self, tokens, model_folder):
        return lambda data, out: [
            *("detect", tokens, data, "--model", model_folder, "--noises", 1, "--per-object", "none", "--out", out)
        ]

    @pytest.fixture
    def small(self, monkeypatch):
        """Meshes are rendered no larger than the model's views."""
        for module in ("cli.work.several", "synthetic.meshes.views"):
            monkeypatch.setattr(f"keyorbit.{module}.MESH_SIDE", 16)

    @pytest.fixture
    def packed(self, chairs, tmp_path, command):
        assert command("dataset", "pack", chairs, "--out", tmp_path / "shards", "--per-shard", 2) == 0
        return tmp_path / "shards"

    def test_results_are_those_of_folders(self, kind, words, chairs, tmp_path, command):
        packed = tmp_path / "shards"
        assert command("dataset", "pack", chairs, "--out", packed, "--per-shard", 2, "--format", kind) == 0
        assert command(*words(packed, tmp_path / "out")) == 0
        assert command(*words(chairs, tmp_path / "plain")) == 0
        found, plain = rows(tmp_path / "out" / "results.jsonl"), rows(tmp_path / "plain" / "results.jsonl")
        assert [row["path"] for row in found] == [
            f"{packed}/objects-{n // 2:06d}.{kind}#chair_1_0000{n}" for n in range(3)
        ]
        for one, other in zip(found, plain, strict=True):
            file = one["photograph"].pop("file")
            assert file == one.pop("path") + "/cond.png"
            del other["path"], other["photograph"]["file"]
        assert found == plain

    def test_at_an_address_it_is_stopped_and_goes_on(self, words, packed, tmp_path, command, monkeypatch):
        data, out = in_memory(f"detect-{tmp_path.name}", *packed.iterdir()), tmp_path / "out"
        reading, read = several.read_elsewhere, []

        def stopping(source, how):
            if len(read) == 1:
                raise KeyboardInterrupt
            read.append(source.key)
            return reading(source, how)

        with monkeypatch.context() as patch:
            patch.setattr(several, "read_elsewhere", stopping)
            assert command(*words(data, out)) == 130
        assert command(*words(data, tmp_path / "whole")) == 0
        del read[:]
        monkeypatch.setattr(several, "read_elsewhere", lambda *given: read.append(given[0].key) or reading(*given))
        assert command(*words(data, out)) == 0
        assert read == ["chair_1_00001", "chair_1_00002"]
        assert contents(out) == contents(tmp_path / "whole")
        first = rows(out / "results.jsonl")[0]["path"]
        assert first.startswith(f"memory://detect-{tmp_path.name}/objects-000000.")
        assert first.endswith("#chair_1_00000")

    def test_meshes_with_landmarks_are_measured(self, tokens, small, tmp_path, command):
        for name, height in (("a", 2), ("b", 3)):
            trimesh.creation.cone(1, height).export(tmp_path / f"{name}.ply")
            marked = {"keypoints": {"tip": [0, 0, height], "foot": [1, 0, 0]}}
            (tmp_path / f"{name}.keypoints.json").write_text(json.dumps(marked))
        assert command("dataset", "pack", tmp_path / "a.ply", tmp_path / "b.ply", "--out", tmp_path / "shards") == 0
        words = ["evaluate", tokens, "--no-baseline", "--up", "z", "--json"]
        assert command(*words, tmp_path / "files.json", tmp_path / "a.ply", tmp_path / "b.ply") == 0
        assert command(*words, tmp_path / "shards.json", tmp_path / "shards") == 0
        files, shards = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("files", "shards"))
        for told in (files, shards):
            for row in told["discovered"]["objects"]:
                row.pop("name")
        assert shards == files
        assert files["discovered"]["landmark_3d"] is not None

    @pytest.mark.parametrize(
        "told",
        [
            lambda points, name: {"keypoints": {name: points}},
            lambda points, name: {"keypoints": {f"{name}.ply": points}},
            lambda points, name: {"keypoints": {"cone": points, name: points}},
            lambda points, name: [
                {"model_id": name, "keypoints": [{"xyz": points[n], "semantic_id": i} for i, n in enumerate(points)]}
            ],
        ],
        ids=["by the mesh's name", "by that of its file", "among others", "as KeypointNet"],
    )
    def test_landmarks_are_found_under_the_name_of_the_file_that_was_packed(self, told, tmp_path, command):
        for name, height in (("a 1", 2), ("b.2", 3)):
            trimesh.creation.cone(1, height).export(tmp_path / f"{name}.ply")
            points = {"tip": [0, 0, height], "foot": [1, 0, 0]}
            (tmp_path / f"{name}.keypoints.json").write_text(json.dumps(told(points, name)))
        assert command("dataset", "pack", tmp_path / "*.ply", "--out", tmp_path / "shards") == 0
        for given, place in (("*.ply", "a"), ("shards", "b")):
            words = ["--size", 16, "--up", "z", "--out", tmp_path / place]
            assert command("dataset", "render", tmp_path / given, *words) == 0
        for files, shards in zip(load_dataset(tmp_path / "a"), load_dataset(tmp_path / "b"), strict=True):
            assert files.truth.names == shards.truth.names
            assert torch.equal(files.truth.keypoints_3d, shards.truth.keypoints_3d)

    def test_landmarks_are_measured_by_name_whatever_their_order(self, tokens, small, tmp_path, command, capsys):
        for name, height in (("a", 2), ("b", 3), ("c", 4)):
            trimesh.creation.cone(1, height).export(tmp_path / f"{name}.ply")
            points = {"tip": [0, 0, height], "foot": [1, 0, 0], "mid": [0, 0, height / 2]}
            points = dict(reversed(points.items())) if name == "b" else points
            (tmp_path / f"{name}.keypoints.json").write_text(json.dumps({"keypoints": points}))
        words = ["evaluate", tokens, "--no-baseline", "--up", "z", "--json"]
        assert command(*words, tmp_path / "files.json", tmp_path / "*.ply") == 0
        assert command("dataset", "pack", tmp_path / "*.ply", "--out", tmp_path / "shards") == 0
        assert command(*words, tmp_path / "shards.json", tmp_path / "shards") == 0
        assert (tmp_path / "shards.json").read_bytes() == (tmp_path / "files.json").read_bytes()
        marked = json.loads((tmp_path / "b.keypoints.json").read_text())
        marked["keypoints"]["middle"] = marked["keypoints"].pop("mid")
        (tmp_path / "b.keypoints.json").write_text(json.dumps(marked))
        assert command("dataset", "pack", tmp_path / "*.ply", "--out", tmp_path / "other") == 0
        assert command(*words, tmp_path / "other.json", tmp_path / "other") == 2
        said = capsys.readouterr().err
        assert "1 of 3 objects are left out" in said
        assert "a has a landmark 'mid' and b has none; what is measured together has the same ones" in said

    def test_damaged_members_are_left_out_and_listed(self, words, tmp_path, command, capsys):
        members = [("a.png", picture()[:60]), ("b.png", picture(1)), ("c.glb", b"no mesh"), ("d.png", picture(2))]
        path = write_tar(tmp_path / "x.tar", members)
        path.write_bytes(path.read_bytes()[: 512 * 7 + 100])
        out = tmp_path / "out"
        assert command(*words(path, out), "--background", "keep") == 2
        said = capsys.readouterr().err
        assert "3 of 4 objects are left out" in said
        assert [row["path"] for row in rows(out / "results.jsonl")] == [f"{path}#b"]
        left = {row["object"]: row["problem"] for row in rows(out / "left_out.jsonl")}
        assert "cannot be read as a picture" in left["a"]
        assert left["c"].startswith(f"{path}#c is no glTF")
        assert "ends after" in left["d"]
        assert "/tmp/keyorbit-" not in said

    def test_one_object_is_written_into_the_folder_itself(self, words, tmp_path, command):
        path = write_tar(tmp_path / "x.tar", [("a.png", picture())])
        given = words(path, tmp_path / "out")
        assert command(*given[:-4], "--background", "keep", "--format", "json", "--out", tmp_path / "out") == 0
        assert json.loads((tmp_path / "out" / "keypoints.json").read_text())["object"] == "a"
        assert command(*given, "--mask", tmp_path / "mask.png") == 2

    def test_views_are_generated_of_shards(self, packed, model_folder, tmp_path, command, few_denoising_steps):
        words = ["generate", packed, "--out", tmp_path / "out", "--model", model_folder, "--steps", 2]
        assert command(*words) == 0
        before = contents(tmp_path / "out")
        assert len([path for path in (tmp_path / "out").iterdir() if path.is_dir()]) == 3
        shutil.rmtree(tmp_path / "out" / "chair_1_00001")
        assert command(*words) == 0
        assert contents(tmp_path / "out") == before

    def test_a_cache_and_an_evaluation_read_shards(self, tokens, packed, model_folder, tmp_path, command, capsys):
        cached = ["cache", packed, "--out", tmp_path / "cache", "--model", model_folder, "--noises", 1]
        assert command(*cached, "--warps", 0) == 0
        assert "3 objects in" in capsys.readouterr().out
        assert command("evaluate", tokens, packed, "--no-baseline", "--limit", 2) == 0


def test_processes_share_shards_in_runs_and_files_in_turns():
    shards = [Path(f"{n}.tar") for n in range(4) for _ in range(5)]
    shares = [shared(list(range(20)), shards, Ranks(i, 3)) for i in range(3)]
    assert [number for share in shares for number in share] == list(range(20))
    # No shard is read by all of them.
    assert max(len({shards[number] for number in share}) for share in shares) <= 3
    assert shared([3, 4, 7], [Path("a"), Path("b"), Path("c")], Ranks(1, 2)) == [4]
    assert [shared([1], [Path("a.tar")], Ranks(i, 3)) for i in range(3)].count([1]) == 1


def test_the_first_objects_go_round_where_edges_are_looked_for(tmp_path):
    sources = [ObjectSource(str(n), Path(f"{n // 50}.tar"), str(n), n % 50) for n in range(200)]
    objects = Several(sources, {}, "auto", True, None)
    for edges, head in ((None, 64), ((), 0)):
        write = Writing(tmp_path, (), edges, "none", None, False)
        shares = [_share(objects, list(range(200)), write, Ranks(i, 2)) for i in range(2)]
        assert sorted(number for share in shares for number in share) == list(range(200))
        assert [sum(number < head for number in share) for share in shares] == [head // 2] * 2
        assert all(list(share) == sorted(share) for share in shares)


def test_many_objects_take_no_more_memory_than_a_hundred(tmp_path):
    data = picture()
    for n in range(4):
        write_tar(tmp_path / f"{n}.tar", [(f"{n}_{i}.png", data) for i in range(150)])
    sources, held = object_sources([tmp_path]), list[int]()
    tracemalloc.start()
    for number, source in enumerate(sources):
        source.files()
        if number in (100, 599):
            held.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    assert len(sources) == 600
    assert held[1] - held[0] < 2**19


@pytest.mark.parametrize("name", ["webdataset", "datasets"])
def test_the_libraries_read_what_is_packed(name, chairs, tmp_path, command, monkeypatch):
    library = pytest.importorskip(name)
    kind = "tar" if name == "webdataset" else "parquet"
    assert command("dataset", "pack", chairs, "--out", tmp_path / "out", "--format", kind) == 0
    shard = str(tmp_path / "out" / f"objects-000000.{kind}")
    if name == "webdataset":
        found = list(library.WebDataset([shard], shardshuffle=False).decode("pil"))
        assert [one["__key__"] for one in found] == [f"chair_1_0000{n}" for n in range(3)]
        assert found[0]["meta.json"]["format"] == "keyorbit-object-1"
        picture_of = found[0]["cond.png"]
    else:
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        found = library.load_dataset("parquet", data_files=shard, split="train", cache_dir=str(tmp_path / "cache"))
        assert found["name"][:] == [f"chair_1_0000{n}" for n in range(3)]
        assert found[0]["views"][0].size == (32, 48)
        picture_of = found[0]["image"]
    assert picture_of.size == (16, 16)


def test_a_key_that_is_lost_is_an_error():
    with pytest.raises(InputError, match="there is no file"):
        object_sources([Path("nothing/x.tar")])
