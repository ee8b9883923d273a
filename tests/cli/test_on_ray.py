"""`--engine ray`: in one process in place of Ray, and once on Ray itself with a worker that is killed."""

import json
import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import keyorbit
from helpers.disk import contents
from keyorbit.cli.engine import Pool, chosen_pool
from keyorbit.cli.work import (
    detecting_on_ray,
    evaluating_on_ray,
    generating_on_ray,
    ray_cluster,
    rendering_on_ray,
    several,
)
from keyorbit.cli.work.on_ray import Workers, _failed, _opened, _Worker, enter, in_goes
from keyorbit.cli.work.ray_cluster import ray_workers
from keyorbit.detection.detector import KeypointDetector
from keyorbit.discovery.config import DiscoverConfig
from keyorbit.discovery.initial import untrained
from keyorbit.errors import InputError

RAY = ["--engine", "ray"]


class Here(Workers):
    """In place of Ray: everything is sent as it would be, and done here; the last part first."""

    def ask(self, job, question):
        return sent(job).begin()(question)

    def results(self, job, parts):
        work = sent(job).begin()
        for part in reversed(parts):
            yield sent(work(sent(list(part))))


def sent(thing):
    return pickle.loads(pickle.dumps(thing))


@pytest.fixture
def engine(monkeypatch):
    """Workers that may be changed by a test."""
    here = Here(2, 2, 0.0)

    @contextmanager
    def workers(pool):
        yield here

    monkeypatch.setattr("keyorbit.cli.engine.find_spec", lambda name: name)
    for module in (detecting_on_ray, evaluating_on_ray, generating_on_ray, rendering_on_ray):
        monkeypatch.setattr(module, "ray_workers", workers)
    return here


@pytest.fixture(scope="module")
def tokens(backend, tmp_path_factory):
    """Tokens that nothing has trained."""
    path = tmp_path_factory.mktemp("tokens") / "tokens.safetensors"
    untrained(backend, DiscoverConfig(num_tokens=3, num_candidates=3)).save(path)
    return path


@pytest.fixture
def data(chairs, tmp_path, monkeypatch):
    """Three objects, of which the second is damaged; named as seen from their folder."""
    folder = shutil.copytree(chairs, tmp_path / "data")
    (folder / "chair_1_00001" / "grid.png").write_bytes(b"no picture")
    monkeypatch.chdir(tmp_path)
    return Path("data")


@pytest.fixture
def words(tokens, data, model_folder, backend, monkeypatch):
    """A quick command without its folder; the model is loaded once for all tests."""
    monkeypatch.setattr("keyorbit.cli.work.loading.load_backend_of", lambda *_: backend)
    return ["detect", tokens, data, "--model", model_folder, "--noises", 1, "--out"]


@pytest.fixture
def read(monkeypatch):
    """The names of the objects that are read."""
    names, reading = [], several.read_source

    def watched(source, *rest):
        names.append(source.name)
        return reading(source, *rest)

    monkeypatch.setattr(several, "read_source", watched)
    monkeypatch.setattr(watched, "__qualname__", "read_source")  # by which it is pickled
    monkeypatch.setattr(watched, "__module__", several.__name__)
    return names


@pytest.mark.parametrize("more", [["--per-object", "none"], ["--per-object", "json", "--skeleton", "auto"]])
def test_results_are_those_of_one_process(more, words, engine, command, capsys, monkeypatch):
    reading = KeypointDetector.read

    def seen(detector, recording):  # edges join what is seen
        one = reading(detector, recording)
        return replace(one, keypoints_3d=replace(one.keypoints_3d, score=torch.ones(3)))

    monkeypatch.setattr(KeypointDetector, "read", seen)
    assert command(*words, "plain", *more) == 2
    expected = capsys.readouterr()
    assert command(*words, "onray", *more, *RAY) == 2
    found = capsys.readouterr()
    assert contents(Path("onray")) == contents(Path("plain"))
    assert json.loads(Path("onray/left_out.jsonl").read_text())["number"] == 1
    first = json.loads(Path("onray/results.jsonl").read_text().splitlines()[0])
    assert bool(first["skeleton"]) == ("auto" in more)
    assert found.out.replace("onray", "plain") == expected.out
    assert found.err.splitlines()[-1].replace("onray/", "plain/") == expected.err.splitlines()[-1]


def test_what_was_stopped_goes_on_with_either_engine(words, engine, command, read, monkeypatch):
    words = [*words[:-1], "--per-object", "json", "--out"]
    assert command(*words, "whole") == 2
    results = Here.results
    monkeypatch.setattr(Here, "results", lambda *given: stopped(results(*given)))
    assert command(*words, "out", *RAY) == 130
    assert [json.loads(line)["object"] for line in Path("out/results.jsonl").read_text().splitlines()] == [
        "chair_1_00002"
    ]
    monkeypatch.setattr(Here, "results", results)
    del read[:]
    assert command(*words, "out", *RAY) == 2
    assert sorted(read) == ["chair_1_00000", "chair_1_00001"]
    assert contents(Path("out")) == contents(Path("whole"))
    del read[:]
    assert command(*words, "out") == 2
    assert read == ["chair_1_00001"]
    assert command(*words, "out", *RAY, "--seed", 1) == 2
    assert contents(Path("out")) == contents(Path("whole"))


def stopped(results):
    yield next(results)
    raise KeyboardInterrupt


def test_strict_stops_and_what_fails_of_all_leaves_nothing(words, data, engine, command, capsys):
    assert command(*words, "out", "--strict", *RAY) == 2
    assert "what was finished is kept" in capsys.readouterr().err
    for place in data.glob("*/grid.png"):
        place.write_bytes(b"no picture")
    assert command(*words, "none", *RAY) == 2
    assert not Path("none").exists()


@pytest.fixture
def meshes(tmp_path, monkeypatch):
    """Two meshes with landmarks, rendered no larger than the model's views."""
    monkeypatch.setattr(several, "MESH_SIDE", 16)
    (tmp_path / "meshes").mkdir()
    corners, faces = ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 2)), ((1, 2, 3), (1, 2, 4), (2, 3, 4), (1, 3, 4))
    lines = [f"{kind} {' '.join(map(str, row))}" for kind, rows in (("v", corners), ("f", faces)) for row in rows]
    for name in ("a", "b"):
        (tmp_path / "meshes" / f"{name}.obj").write_text("\n".join(lines))
        (tmp_path / "meshes" / f"{name}.keypoints.json").write_text(
            '{"keypoints": {"tip": [0, 0, 2], "corner": [0, 0, 0]}}'
        )
    return Path("meshes")


def test_meshes_are_detected_by_workers(tokens, words, meshes, engine, command):
    words = [*words[:2], "meshes", *words[3:-1], "--per-object", "none", "--up", "z", "--out"]
    assert command(*words, "plain") == command(*words, "ray", *RAY) == 0
    assert contents(Path("ray")) == contents(Path("plain"))


def test_views_are_those_of_one_process(data, engine, model_folder, backend, command, monkeypatch, capsys):
    monkeypatch.setattr("keyorbit.cli.work.loading.load_backend", lambda *_: backend)
    (data / "chair_1_00001" / "cond.png").write_bytes(b"no picture")
    words = ["generate", data, "--model", model_folder, "--steps", 1, "--num", 2, "--out"]
    assert command(*words, "plain") == command(*words, "ray", *RAY) == 2
    assert capsys.readouterr().err.count("1 of 3 objects are left out") == 2
    assert contents(Path("ray")) == contents(Path("plain"))
    shutil.rmtree("ray/chair_1_00002_1")
    assert command(*words, "ray", *RAY) == 2
    assert contents(Path("ray")) == contents(Path("plain"))
    assert command(*words, "ray", "--seed", 5, *RAY) == 2
    assert "with other settings" in capsys.readouterr().err
    shutil.rmtree("data/chair_1_00000")
    shutil.rmtree("data/chair_1_00002")
    shutil.copytree("data/chair_1_00001", "data/other")
    assert command(*words, "none", *RAY) == 2
    assert not Path("none").exists()


def test_figures_are_those_of_one_process(words, data, engine, command, capsys):
    words = ["evaluate", words[1], data, "--no-baseline", "--moved", data]
    assert command(*words, "--json", "plain.json") == command(*words, "--json", "ray.json", *RAY) == 2
    plain, ray = (line for line in capsys.readouterr().err.splitlines() if "2 of 6 objects are left out" in line)
    assert plain == ray
    assert Path("ray.json").read_bytes() == Path("plain.json").read_bytes()
    assert json.loads(Path("ray.json").read_text())["discovered"]["left_out"] == ["chair_1_00001"]


def test_an_evaluation_that_was_stopped_goes_on_with_either_engine(words, data, engine, command, read, monkeypatch):
    words = ["evaluate", words[1], data, "--no-baseline", "--out"]
    assert command(*words, "whole") == 2
    results = Here.results
    monkeypatch.setattr(Here, "results", lambda *given: stopped(results(*given)))
    assert command(*words, "out", *RAY) == 130
    assert [path.name for path in Path("out/objects").iterdir()] == ["00000002.safetensors"]
    monkeypatch.setattr(Here, "results", results)
    assert command(*words, "out", *RAY) == 2
    assert contents(Path("out")) == contents(Path("whole"))
    del read[:]
    assert command(*words, "out") == 2
    assert read == ["chair_1_00000", "chair_1_00001"]  # the first one, and the one that was left out
    assert command(*words, "out", *RAY, "--generate") == 2  # other figures
    assert command(*words, "strict", *RAY, "--strict") == 2
    assert contents(Path("out")) == contents(Path("whole"))


def test_meshes_are_measured_by_workers(words, meshes, engine, command):
    words = ["evaluate", words[1], meshes, "--no-baseline", "--up", "z", "--json"]
    assert command(*words, "plain.json") == command(*words, "ray.json", *RAY) == 0
    assert Path("ray.json").read_bytes() == Path("plain.json").read_bytes()


def test_meshes_are_rendered_by_workers(meshes, engine, command, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (meshes / "broken.obj").write_text("v 0 0 0")
    words = ["dataset", "render", meshes, "--size", 8, "--up", "z", "--out"]
    assert command(*words, "plain") == command(*words, "ray", *RAY, "--workers", 2) == 2
    assert capsys.readouterr().err.count("1 of 3 meshes are left out") == 2
    assert contents(Path("ray")) == contents(Path("plain"))
    shutil.rmtree("ray/b")
    assert command(*words, "ray", *RAY) == 2
    assert "(1 of them were there already)" in capsys.readouterr().out
    assert contents(Path("ray")) == contents(Path("plain"))
    assert command(*words, "strict", *RAY, "--strict") == 2
    assert command("dataset", "render", meshes / "a.obj", "--out", "one", *RAY) == 2
    assert "leave it out for one" in capsys.readouterr().err
    for name in ("a", "b"):
        (meshes / f"{name}.obj").write_text("v 0 0 0")
    assert command(*words, "none", *RAY) == 2
    assert not Path("none").exists()


def test_a_mesh_whose_worker_died_after_it_is_not_refused(meshes, engine, command, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    results = Here.results

    def twice(workers, job, parts):
        list(results(workers, job, parts))
        return results(workers, job, parts)

    monkeypatch.setattr(Here, "results", twice)
    assert command("dataset", "render", meshes, "--size", 8, "--up", "z", "--out", "ray", *RAY) == 0


@pytest.mark.parametrize("text", ["0", "1-4", "many", "9" * 20])
def test_processes_that_render_are_a_number(text, meshes, command, capsys):
    assert command("dataset", "render", meshes, "--out", "out", "--workers", text) == 2
    assert "--workers" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--engine", "spark"], "--engine cannot be 'spark'"),
        (["--workers", "2"], "--workers and --gpus are for --engine ray"),
        ([*RAY, "--workers", "0"], "--workers is a number such as 4"),
        ([*RAY, "--workers", "4-2"], "--workers is a number such as 4"),
        ([*RAY, "--workers", "many"], "not 'many'"),
        ([*RAY, "--gpus", "2"], "--gpus"),
        ([*RAY, "--gpus", "1", "--device", "cpu"], "--device cpu uses none"),
        ([*RAY, "--dry-run"], "--dry-run measures"),
    ],
)
def test_what_contradicts_itself_is_refused(more, said, words, engine, command, capsys):
    assert command(*words, "out", *more) == 2
    assert said in capsys.readouterr().err
    assert not Path("out").exists()


def test_one_object_needs_no_engine(words, data, engine, command, capsys):
    alone = [*words[:2], data / "chair_1_00000", *words[3:]]
    assert command(*alone, "out", *RAY) == 2
    assert "leave it out for one" in capsys.readouterr().err


def test_a_launcher_and_an_engine_exclude_each_other(engine, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="without torchrun"):
        chosen_pool("ray", None, None)


def test_without_ray_it_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr("keyorbit.cli.engine.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'keyorbit\[ray\]'"):
        chosen_pool("ray", None, None)


def test_pools_that_can_be_asked_for(engine):
    assert chosen_pool(None, None, None) is None
    assert chosen_pool("ray", None, None) == Pool()
    assert chosen_pool("ray", "3", 0.5) == Pool(3, None, 0.5)
    assert chosen_pool("ray", "1-64", None, "cpu") == Pool(1, 64, 0.0)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("ray://somewhere:10001", "ray job submit"),
        ("localhost:{free}", "no Ray cluster answers"),
        ("nonsense", "no Ray cluster answers"),
        ("localhost:99999999", "no Ray cluster answers"),
    ],
)
def test_a_cluster_that_does_not_answer_is_told_at_once(address, said, monkeypatch):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = address.format(free=free.getsockname()[1])
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(InputError, match=said), ray_workers(Pool()):
        pass


@pytest.mark.parametrize(
    ("cpus", "gpus", "pool", "found"),
    [
        (4, 0, Pool(), (4, 4, 0.0)),
        (4, 2, Pool(), (2, 2, 1.0)),
        (4, 2, Pool(gpus=0.5), (4, 4, 0.5)),
        (4, 2, Pool(1, 64), (1, 64, 1.0)),
        (4, 2, Pool(2, None, 0.0), (2, 2, 0.0)),
        (4, 1, Pool(2), "cannot hold 2 workers of 1 CPU and 1 GPU each"),
        (4, 0, Pool(1, None, 1.0), "has 4 CPUs and 0 GPUs"),
    ],
)
def test_as_many_workers_as_fit(cpus, gpus, pool, found, monkeypatch):
    monkeypatch.setattr(ray_cluster, "_there", {"CPU": float(cpus), "GPU": float(gpus)}.__getitem__)
    if isinstance(found, str):
        with pytest.raises(InputError, match=found):
            ray_cluster._workers(pool, joined=False)
    else:
        workers = ray_cluster._workers(pool, joined=False)
        assert (workers.least, workers.most, workers.gpus) == found


def test_a_cluster_that_grows_is_waited_for(monkeypatch, capsys):
    gpus = iter([0.0] * 6 + [1.0] * 9)
    monkeypatch.setattr(ray_cluster, "_there", lambda what: 1.0 if what == "CPU" else next(gpus))
    monkeypatch.setattr(ray_cluster.time, "sleep", lambda seconds: None)
    assert ray_cluster._workers(Pool(1, 4, 1.0), joined=True).most == 4
    assert capsys.readouterr().err.count("waiting until it can hold 1 workers") == 1
    monkeypatch.setattr(ray_cluster, "_ROOM", 0)
    monkeypatch.setattr(ray_cluster, "_there", lambda what: 0.0)
    with pytest.raises(InputError, match="the Ray cluster has 0 CPUs"):
        ray_cluster._workers(Pool(), joined=True)


@given(st.lists(st.integers(), max_size=600), st.integers(1, 8), st.integers(1, 100))
def test_goes_hold_all_in_whole_batches(things, workers, batch):
    parts = in_goes(things, workers, batch)
    assert [thing for part in parts for thing in part] == things
    sizes = [len(part) for part in parts]
    assert all(size % batch == 0 for size in sizes[:-1])
    assert all(size <= max(64, batch) for size in sizes)
    assert len(sizes) <= max(1, -(-len(things) // batch))


class Unsendable(Exception):
    """What a library may raise: it cannot be made from its text."""

    def __init__(self, first, second):
        super().__init__(first)


@dataclass
class Failing:
    error: Exception
    early: bool

    def begin(self):
        if self.early:
            raise self.error
        return self.work

    def work(self, part):
        raise self.error


@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize(
    ("error", "kind"),
    [(InputError("a sentence"), InputError), (OSError(28, "full"), OSError), (Unsendable(1, 2), RuntimeError)],
)
def test_what_goes_wrong_in_a_worker_is_raised_here(error, kind, early):
    made = _Worker(Failing(error, early))._made(pickle.dumps(None))
    with pytest.raises(kind) as caught:
        _opened(made)
    assert str(error.args[-1]) in str(caught.value)
    assert ("in a worker on Ray" in "".join(getattr(caught.value, "__notes__", []))) == (kind is OSError)


@dataclass
class Doubling:
    def begin(self):
        return lambda part: [2 * one for one in part]


class Losing(Workers):
    """In place of Ray: after each part its node is lost, as often as ``losses`` says."""

    losses = 0

    def round(self, job, parts):
        worker = _Worker(job)
        for number, part in tuple(parts.items()):
            yield number, worker._made(part)
            if type(self).losses:
                type(self).losses -= 1
                raise ray_exceptions().ActorUnavailableError("gone", None)


def ray_exceptions():
    return pytest.importorskip("ray.exceptions")


@pytest.mark.parametrize("losses", [0, 1, 3, 4])
def test_what_a_lost_node_had_is_done_again_and_nothing_twice(losses, monkeypatch):
    exceptions = ray_exceptions()
    monkeypatch.setattr(Losing, "losses", losses)
    found = Losing(1, 1, 0.0).results(Doubling(), [[n] for n in range(6)])
    if losses < 4:
        assert list(found) == [[2 * n] for n in range(6)]
    else:
        with pytest.raises(exceptions.ActorUnavailableError):
            list(found)


def test_an_error_is_sent_whole():
    with pytest.raises(MemoryError, match="too much"):
        _opened(_failed(MemoryError("too much")))


def test_a_node_that_does_not_see_the_data_says_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    enter(tmp_path / "nowhere", ())
    assert Path.cwd() == tmp_path
    with pytest.raises(InputError, match=f"missing is not there on {socket.gethostname()}"):
        enter(tmp_path, (tmp_path / "missing",))


@pytest.mark.parametrize("name", ["detect", "evaluate"])
def test_a_node_with_another_model_stops_the_command(name, words, engine, command, capsys, monkeypatch):
    module, function = {"detect": (detecting_on_ray, "made_with"), "evaluate": (evaluating_on_ray, "made_by")}[name]
    made, seen = getattr(module, function), []

    def changed(detector):
        seen.append(detector)
        return made(detector) | ({"model": "another"} if len(seen) > 1 else {})

    monkeypatch.setattr(module, function, changed)
    more = ["out"] if name == "detect" else ["out", "--no-baseline"]
    words = words if name == "detect" else ["evaluate", *words[1:3], "--out"]
    assert command(*words, *more, *RAY) == 2
    assert "model is another than on the node that was asked first" in capsys.readouterr().err


@pytest.mark.skipif(find_spec("ray") is None or sys.platform == "win32", reason="needs Ray")
def test_ray_goes_on_where_a_worker_is_killed(tokens, chairs, model_folder, tmp_path, command, monkeypatch):
    data = tmp_path / "data"
    for number in range(5):
        shutil.copytree(sorted(chairs.iterdir())[number % 3], data / f"chair_{number}")
    (data / "chair_2" / "grid.png").write_bytes(b"no picture")
    monkeypatch.chdir(tmp_path)
    words = ["detect", tokens, "data", "--model", model_folder, "--noises", "1", "--per-object", "json", "--out"]
    # The environment has what the tests' own import would find.
    source = str(Path(keyorbit.__file__).parents[1])
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    environment |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": source}
    line = [sys.executable, "-m", "keyorbit", *map(str, words), "ray", *RAY, "--workers", "2"]
    running = subprocess.Popen(line, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        worker, deadline = None, time.monotonic() + 300
        while worker is None:
            assert running.poll() is None, running.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.05)
            # Named by Ray: one that does a part, or waits for one.
            if list(Path("ray").glob("results.part-*")):
                worker = next((one for one in processes(running.pid) if "MapWorker" in name_of(one)), None)
        worker.send_signal(signal.SIGKILL)
        said, problems = running.communicate(timeout=300)
    finally:
        running.terminate()
        running.wait()
    assert running.returncode == 2, problems
    assert "1 of 5 objects are left out" in problems
    assert "ray::" not in problems
    assert "chair_4" in said
    assert command(*words, "plain") == 2
    assert contents(Path("ray")) == contents(Path("plain"))


def processes(pid):
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        return []


def name_of(process):
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
