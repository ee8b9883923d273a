"""Objects in tar shards and Parquet: those of ours, other people's, and damaged ones."""

import os
import pickle
import tarfile
from pathlib import Path

import pytest

from helpers.disk import contents
from helpers.shards import in_memory, picture, write_tar
from keyorbit.errors import InputError
from keyorbit.objects.dataset import load_dataset, read_source
from keyorbit.objects.shards import tar
from keyorbit.objects.shards.names import mesh_in, mesh_suffix, picture_in, split_name
from keyorbit.objects.sources import object_sources

PICTURES = [("a.png", picture(1)), ("a.txt", b"words"), ("b.jpg", picture(2, "JPEG")), ("b.json", b"{}")]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Nothing is written but below here."""
    monkeypatch.chdir(tmp_path)


def names(*paths):
    return [source.name for source in object_sources([Path(path) for path in paths])]


def indexed(path, lines):
    """Write the index of a shard."""
    path.with_suffix(".idx").write_text("\n".join([f"v1.2 {len(lines)}", *lines]) + "\n")
    return path


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("a.png", ("a", "png")),
        ("train/n01/a.cond.png", ("train/n01/a", "cond.png")),
        ("../a.png", ("../a", "png")),
        ("./a.png", ("./a", "png")),
        ("a.b/c.d.e", ("a.b/c", "d.e")),
        ("a", None),
        (".a.png", None),
        ("x/.a.png", None),
        ("x/._a.png", None),
        ("__meta__.json", None),
        ("__index__/a.json", None),
        ("a./b", None),
    ],
)
def test_names_are_split_as_webdataset_does(name, split):
    assert split_name(name) == split


def test_what_a_picture_and_a_mesh_are_called():
    assert picture_in(["txt", "input.png", "JPG"]) == "JPG"
    assert picture_in(["mask.png", "input.png"]) == "input.png"
    assert picture_in(["mask.png", "json"]) is None
    names = ("glb", "mesh.OBJ", "mesh.tar.gz", "zip", "png")
    assert [mesh_in([one]) for one in names] == [*names[:3], None, None]
    assert [mesh_suffix(one) for one in ("glb", "mesh.OBJ", "mesh.tar.gz")] == [".glb", ".obj", ".tar.gz"]


def test_pictures_of_other_peoples_shards(tmp_path):
    path = write_tar(tmp_path / "x.tar", [*PICTURES, ("c.txt", b"only words"), ("d.pkl", b"never read")])
    sources = object_sources([path])
    assert [source.where for source in sources] == [f"{path}#a", f"{path}#b"]
    assert pickle.loads(pickle.dumps(sources)) == sources
    for source in sources:
        thing = read_source(source, "keep")
        assert (thing.name, thing.input_image.size, thing.views, thing.background) == (
            source.name,
            (24, 24),
            None,
            "keep",
        )
        assert thing.source.file == source.where
    assert [thing.name for thing in load_dataset(path)] == ["a", "b"]


@pytest.mark.parametrize("format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_long_names_and_all_that_a_tar_file_may_hold(tmp_path, format):
    deep = "folder/" * 12 + "n" * 60
    path = tmp_path / "x.tar"
    write_tar(path, [(f"{deep}.png", picture()), ("ä ö.png", picture(1))], format)
    with tarfile.open(path, "a", format=format) as tape:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE):
            info = tarfile.TarInfo("link.png")
            info.type, info.linkname = kind, "/etc/passwd"
            tape.addfile(info)
    things = list(load_dataset(path))
    assert [thing.name for thing in things] == ["n" * 60, "ä ö"]
    assert all(thing.input_image.size == (24, 24) for thing in things)


def test_names_that_lead_out_are_names_and_nothing_is_written_by_them(tmp_path):
    inside = tmp_path / "inside"
    inside.mkdir()
    members = [("../../evil.png", picture()), ("/etc/evil2.png", picture(1)), ("..\\evil3.png", picture(2))]
    path = write_tar(inside / "x.tar", members)
    before = contents(tmp_path)
    things = list(load_dataset(path))
    assert [thing.name for thing in things] == ["evil", "evil2"]
    assert contents(tmp_path) == before


def test_objects_with_equal_keys_stay_two(tmp_path):
    members = [("a.png", picture(1)), ("b.png", picture(2)), ("a.png", picture(3)), ("a.png", picture(4))]
    sources = object_sources([write_tar(tmp_path / "x.tar", members)])
    assert [source.key for source in sources] == ["a", "b", "a", "a"]
    pixels = {read_source(source).input_image.tobytes() for source in sources}
    assert len(pixels) == 4


@pytest.mark.parametrize("where", ["folder", "pattern", "braces", "several", "memory", "memory pattern", "file"])
def test_shards_are_found_by_folder_pattern_braces_and_address(tmp_path, where):
    folder = tmp_path / "shards"
    folder.mkdir()
    paths = [write_tar(folder / f"x-{n:03d}.tar", [(f"{n}.png", picture(n))]) for n in range(3)]
    (folder / ".x-000.tar").write_bytes(b"macOS")
    given = {
        "folder": [folder],
        "pattern": [folder / "x-*.tar"],
        "braces": [folder / "x-{000..002}.tar"],
        "several": paths,
        "memory": [in_memory(f"found{os.getpid()}", *paths)],
        "memory pattern": [in_memory(f"found{os.getpid()}", *paths) / "x-0?[0-2].tar"],
        "file": [Path(f"file://{folder}")],
    }[where]
    assert names(*given) == ["0", "1", "2"]
    assert [thing.name for path in given for thing in load_dataset(path)] == ["0", "1", "2"]


def test_a_folder_of_objects_and_shards_stands_for_its_objects(tmp_path, chairs):
    folder = tmp_path / "both"
    folder.mkdir()
    write_tar(folder / "x.tar", PICTURES)
    (folder / "c.png").write_bytes(picture())
    assert names(folder) == ["c"]


def test_a_picture_at_an_address_is_one(tmp_path):
    (tmp_path / "chair.png").write_bytes(picture())
    folder = in_memory("pictures", tmp_path / "chair.png")
    (source,) = object_sources([folder])
    assert (source.name, source.where, source.key) == ("chair", "memory://pictures/chair.png", None)
    assert read_source(source).source.file == "memory://pictures/chair.png"
    assert names(folder / "chair.png") == ["chair"]
    with pytest.raises(InputError, match=r"there is no file or folder at memory://pictures/no\.png"):
        load_dataset(folder / "no.png")[0]
    with pytest.raises(InputError, match="memory://pictures/empty holds no shards"):
        object_sources([folder / "empty"])


def test_an_empty_shard_and_none_of_several(tmp_path):
    empty = write_tar(tmp_path / "empty.tar", [])
    write_tar(tmp_path / "full.tar", PICTURES)
    with pytest.raises(InputError, match=r"empty\.tar holds no objects"):
        object_sources([empty])
    assert names(tmp_path) == ["a", "b"]
    (tmp_path / "zero.tar").write_bytes(b"")
    with pytest.raises(InputError, match=r"zero\.tar is an empty file"):
        object_sources([tmp_path])


@pytest.mark.parametrize("content", [b"no tar" * 500, b"\x1f\x8b" + bytes(1000), b"x" * 10, b"<html>" * 200])
def test_what_is_no_tar_file_is_one_sentence(tmp_path, content):
    (tmp_path / "x.tar").write_bytes(content)
    with pytest.raises(InputError, match=r"x\.tar is no tar file") as caught:
        object_sources([tmp_path / "x.tar"])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("cut", [-512 * 18, -512 * 17 - 100, 700, 512 * 3 + 10])
def test_a_cut_shard_is_read_up_to_there_and_the_rest_is_one_problem(tmp_path, cut):
    members = [(f"{n}.png", picture(n)) for n in range(9)]
    path = write_tar(tmp_path / "x.tar", members)
    whole = path.read_bytes()
    path.write_bytes(whole[:cut])
    sources = object_sources([path])
    *good, last = sources
    assert [source.name for source in good] == [str(n) for n in range(len(good))]
    assert all(read_source(source) for source in good)
    with pytest.raises(InputError, match=r"x\.tar ends after .* bytes, .*pack it again"):
        read_source(last)


def test_a_damaged_header_ends_a_shard_with_a_problem(tmp_path):
    path = write_tar(tmp_path / "x.tar", [(f"{n}.png", picture(n)) for n in range(4)])
    data = bytearray(path.read_bytes())
    (at,) = (tar.scanned(path)[2].members[0].offset - 512,)
    data[at + 20] ^= 0xFF
    path.write_bytes(data)
    *good, last = object_sources([path])
    assert [source.name for source in good] == ["0", "1"]
    with pytest.raises(InputError, match="is damaged at byte"):
        read_source(last)


def test_a_damaged_picture_names_its_shard(tmp_path):
    cut, flipped = picture(1)[:60], bytearray(picture(2))
    flipped[40] ^= 0xFF  # which the sum behind a PNG's part betrays
    path = write_tar(
        tmp_path / "x.tar", [("a.png", cut), ("b.png", bytes(flipped)), ("c.png", b""), ("d.png", picture())]
    )
    *bad, good = object_sources([path])
    for source in bad:
        with pytest.raises(InputError) as caught:
            read_source(source)
        assert str(caught.value).startswith(source.where)
    assert read_source(good)


def test_an_index_tells_what_is_where_and_no_header_is_read(tmp_path, monkeypatch):
    path = write_tar(tmp_path / "x.tar", PICTURES)
    entries = tar.scanned(path)
    lines = [" ".join(f"{m.file} {m.offset} {m.size} {m.name}" for m in entry.members) for entry in entries]
    indexed(path, lines)
    monkeypatch.setattr(tar, "scanned", lambda shard: pytest.fail("headers are read"))
    sources = object_sources([path])
    assert [source.key for source in sources] == ["a", "b"]
    assert all(read_source(source) for source in sources)
    folder = in_memory("indexed", path, path.with_suffix(".idx"))
    assert [read_source(source).name for source in object_sources([folder])] == ["a", "b"]


def test_an_index_of_another_shard_or_another_version_is_noticed(tmp_path):
    path = write_tar(tmp_path / "x.tar", PICTURES)
    indexed(path, ["png 1024 50 a.png"])
    (source,) = object_sources([path])
    with pytest.raises(InputError, match=r"not where the shard's index says.*delete .*x\.idx"):
        read_source(source)
    indexed(path, [f"png 512000 {len(picture(1))} a.png"])
    with pytest.raises(InputError, match="the shard ends within png"):
        read_source(object_sources([path])[0])
    for text in (
        "v1.1 1\npng 512 10\n",
        "v1.2 5\npng 512 10 a.png\n",
        "",
        "v1.2 1\npng x 10 a.png\n",
        "v1.2 1\npng 0 9 a.png",
    ):
        path.with_suffix(".idx").write_text(text)
        with pytest.raises(InputError, match=r"x\.idx is no index of version v1\.2"):
            object_sources([path])
    path.with_suffix(".idx").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="is no index"):
        object_sources([path])


def test_a_shard_that_became_shorter_says_so(tmp_path):
    path = write_tar(tmp_path / "x.tar", PICTURES)
    sources = object_sources([path])
    write_tar(path, PICTURES[:1])
    with pytest.raises(InputError, match=r"x\.tar#b is not there any more"):
        read_source(sources[1])


def test_one_shards_index_is_held_and_not_all(tmp_path):
    paths = [write_tar(tmp_path / f"{n}.tar", [(f"{n}.png", picture(n))]) for n in range(5)]
    for source in object_sources(paths):
        read_source(source)
    assert tar._kept.cache_info().currsize <= 2


def test_an_object_of_which_a_file_is_missing_names_it(tmp_path, chairs):
    folder = sorted(chairs.iterdir())[0]
    files = [(f"a.{path.name}", path.read_bytes()) for path in sorted(folder.iterdir()) if path.name != "grid.png"]
    path = write_tar(tmp_path / "x.tar", files)
    with pytest.raises(InputError, match=r"there is no picture at .*x\.tar#a/view_0\.png"):
        load_dataset(path)[0]
    broken = [(name, b"{" if name.endswith("json") else data) for name, data in files]
    write_tar(path, broken)
    with pytest.raises(InputError, match=r"x\.tar#a/meta\.json cannot be read as JSON"):
        load_dataset(path)[0]


def test_meshes_are_named_as_such_where_pictures_are_wanted(tmp_path):
    path = write_tar(tmp_path / "x.tar", [("a.glb", b"glTF")])
    with pytest.raises(InputError, match=r"x\.tar#a is a mesh: 'keyorbit dataset render'"):
        load_dataset(path)[0]


class TestParquet:
    """Parquet of other people."""

    @pytest.fixture
    def write(self, tmp_path):
        arrow = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        def written(file="x.parquet", rows=20, **columns):
            path = tmp_path / file
            parquet.write_table(arrow.table(columns), path, row_group_size=rows)
            return path

        return written

    def test_a_struct_of_bytes_and_path_is_a_picture(self, write):
        images = [{"bytes": picture(n), "path": f"train/p{n}.png"} for n in range(7)]
        path = write(image=images, label=list(range(7)), rows=3)
        sources = object_sources([path])
        assert [source.where for source in sources] == [f"{path}#p{n}" for n in range(7)]
        seen = [read_source(source).input_image.tobytes() for source in sources]
        assert len(set(seen)) == 7
        # In any order, and again.
        assert [read_source(sources[n]).input_image.tobytes() for n in (6, 0, 3, 3, 2)] == [
            seen[n] for n in (6, 0, 3, 3, 2)
        ]

    def test_plain_bytes_and_a_column_of_names(self, write):
        path = write(id=["x", "y"], jpg=[picture(1, "JPEG"), picture(2, "JPEG")], score=[0.5, None])
        assert names(path) == ["x", "y"]
        assert all(thing.input_image.size == (24, 24) for thing in load_dataset(path))
        assert names(write(picture=[picture(1)] * 3)) == ["000000", "000001", "000002"]

    def test_columns_that_are_only_called_like_ours_are_those_of_others(self, write):
        image = [{"bytes": picture(), "path": "cond.png"}]
        path = write(name=["a"], image=image, views=[3], meta=[{"x": 1}], files=["x"])
        assert names(path) == ["a"]
        assert read_source(object_sources([path])[0]).input_image.size == (24, 24)

    def test_rows_without_a_picture_and_damaged_ones_are_problems_of_their_own(self, write):
        images = [
            {"bytes": None, "path": "a.png"},
            {"bytes": b"no", "path": "b.png"},
            {"bytes": picture(), "path": None},
        ]
        path = write(image=images)
        for number, words in ((0, "holds no picture"), (1, "cannot be read as a picture")):
            with pytest.raises(InputError, match=f"x.parquet#.*{words}"):
                load_dataset(path)[number]
        assert load_dataset(path)[2].name == "000002"

    def test_files_without_pictures_and_damaged_files_are_one_sentence(self, write, tmp_path):
        with pytest.raises(InputError, match=r"has no column of pictures .*, but a, b"):
            object_sources([write(a=[1], b=["x"])])
        path = write(image=[{"bytes": picture(), "path": "a.png"}])
        data = path.read_bytes()
        for cut in (data[:-20], data[:10], b"", b"PAR1"):
            path.write_bytes(cut)
            with pytest.raises(InputError, match=r"x\.parquet cannot be read") as caught:
                object_sources([path])
            assert "\n" not in str(caught.value)

    def test_damage_within_is_told_of_the_object(self, write):
        path = write(image=[{"bytes": os.urandom(2000), "path": f"{n}.png"} for n in range(4)])
        sources = object_sources([path])
        data = bytearray(path.read_bytes())
        data[10:400] = bytes(390)
        path.write_bytes(data)
        with pytest.raises(InputError, match=r"x\.parquet#0"):
            read_source(sources[0])

    def test_an_empty_file_holds_no_objects(self, write):
        arrow = pytest.importorskip("pyarrow")
        kind = arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())])
        with pytest.raises(InputError, match="holds no objects"):
            object_sources([write(image=arrow.array([], kind))])

    def test_pictures_and_names_may_be_told_once_each(self, write):
        arrow = pytest.importorskip("pyarrow")
        images = arrow.array([picture(1), picture(2), picture(1)]).dictionary_encode()
        path = write(image=images, name=arrow.array(["a", "b", "c"]).dictionary_encode())
        assert [thing.name for thing in load_dataset(path)] == ["a", "b", "c"]
        first, second, third = (thing.input_image.tobytes() for thing in load_dataset(path))
        assert first == third != second

    def test_it_is_read_at_an_address(self, write):
        path = write(image=[{"bytes": picture(n), "path": f"{n}.png"} for n in range(3)])
        folder = in_memory("parquet", path)
        assert [thing.name for thing in load_dataset(folder)] == ["0", "1", "2"]

    def test_without_pyarrow_its_name_is_told(self, write, monkeypatch):
        path = write(image=[{"bytes": picture(), "path": "a.png"}])
        monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
        with pytest.raises(InputError, match=r"without pyarrow: pip install 'keyorbit\[data\]'"):
            object_sources([path])


def test_json_beside_a_picture_is_not_looked_into(tmp_path):
    path = write_tar(tmp_path / "x.tar", [("a.json", b"[" * 100_000), ("a.png", picture())])
    assert load_dataset(path)[0].name == "a"
