"""Models and tokens from a Hub that runs here: each file once, and on bad days a sentence with nothing half-written."""

import errno
import shutil

import pytest
import torch
from huggingface_hub import close_session, constants
from safetensors.torch import load_file, save_file

from helpers import hub
from helpers.hostile import answer
from keyorbit.diffusion.backends.folders import model_folder
from keyorbit.diffusion.backends.loading import _controlnet_folder, load_backend, source_folder
from keyorbit.diffusion.hub_access import fetched, trouble
from keyorbit.diffusion.tokens import Tokens
from keyorbit.errors import InputError


@pytest.fixture
def known(monkeypatch, tmp_path):
    """Lets huggingface_hub know a Hub, with a cache that is empty at first."""
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "https_proxy", "http_proxy", "all_proxy", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # between its attempts
    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 0.3)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
    yield lambda url: hub.use(monkeypatch, url, tmp_path / "cache")
    close_session()


def published(folder, target):
    """A repository as they are: each weight several times, and parts and files that nobody loads here."""
    shutil.copytree(folder, target)
    loaded = {path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file()}
    for path in list(target.rglob("*.safetensors")):
        for name in (f"{path.stem}.fp16.safetensors", f"{path.stem}.non_ema.safetensors", f"{path.stem}.bin"):
            shutil.copy(path, path.with_name(name))
    shutil.copytree(target / "vae", target / "safety_checker", ignore=shutil.ignore_patterns("*.json"))
    for name in ("all.safetensors", "vae/pytorch_lora_weights.safetensors", "unet/model.onnx", "README.md"):
        shutil.copy(next((target / "vae").glob("*.bin")), target / name)
    # One part in shards only, one in half precision only.
    whole = target / "unet" / "diffusion_pytorch_model.safetensors"
    weights = list(load_file(whole).items())
    halves = [dict(weights[: len(weights) // 2]), dict(weights[len(weights) // 2 :])]
    table = {"metadata": {}, "weight_map": {}}
    for i, half in enumerate(halves, 1):
        save_file(half, whole.with_name(name := f"diffusion_pytorch_model-0000{i}-of-00002.safetensors"))
        table["weight_map"] |= dict.fromkeys(half, name)
        loaded.add(f"unet/{name}")
    whole.unlink()
    hub.write_json(whole.with_name(index := "diffusion_pytorch_model.safetensors.index.json"), table)
    (target / "text_encoder" / "model.safetensors").unlink()
    lost = {"unet/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"}
    return (loaded - lost) | {f"unet/{index}", "text_encoder/model.fp16.safetensors"}


def test_each_weight_is_fetched_once_and_only_what_is_loaded(model_folder, backend, known, tmp_path):
    wanted = published(model_folder, tmp_path / "published")
    with hub.served(tmp_path / "published") as server:
        known(server.url)
        loaded = load_backend("o/x")
        assert server.sent == {name: (tmp_path / "published" / name).stat().st_size for name in wanted}
        assert all(v.equal(loaded.unet.state_dict()[k]) for k, v in backend.unet.state_dict().items())
        assert load_backend("o/x").fingerprint == loaded.fingerprint
        assert sum(server.sent.values()) == sum((tmp_path / "published" / name).stat().st_size for name in wanted)
    assert load_backend("o/x").fingerprint == loaded.fingerprint  # the Hub is gone


def test_of_models_of_another_kind_no_weights_are_fetched(stable_diffusion_folder, known, tmp_path):
    folder = shutil.copytree(stable_diffusion_folder, tmp_path / "published")
    index = (folder / "model_index.json").read_text()
    (folder / "model_index.json").write_text(index.replace("{", '{"text_encoder_2": ["transformers", "X"], ', 1))
    with hub.served(folder) as server:
        known(server.url)
        with pytest.raises(InputError, match="Stable Diffusion XL"):
            load_backend("o/x")
        assert not any(name.endswith(".safetensors") for name in server.sent)


def test_own_weights_of_a_replaced_unet_are_not_fetched(stable_diffusion_folder, known):
    with hub.served(stable_diffusion_folder) as server:
        known(server.url)
        source_folder("o/x", own_unet=False)
        assert "vae/diffusion_pytorch_model.safetensors" in server.sent
        assert "unet/diffusion_pytorch_model.safetensors" not in server.sent


def test_a_controlnet_is_fetched_from_its_root(stable_diffusion_folder, known):
    with hub.served(stable_diffusion_folder / "unet") as server:
        known(server.url)
        assert _controlnet_folder("o/x").is_dir()
        assert sorted(server.sent) == ["config.json", "diffusion_pytorch_model.safetensors"]


DAYS = {
    "page": "sent a web page instead of a file: is this network behind a login page",
    "login": "sent a web page",
    "json": "sent a web page",
    "page for files": "sent a web page",
    "cut": "connection was lost in the middle of a file: start again",
    "silent": "did not answer in time",
    "401": "none of that name, or a private one: check the name and HF_ENDPOINT, or log in",
    "403": "you may not read it .403.",
    "403 GatedRepo": "authors want their terms accepted: do so at http://[0-9.:]+/o/x, and log in with 'hf auth login'",
    "404 RepoNotFound": "none of that name, or a private one",
    "404 RevisionNotFound": "none of that name, or a private one",
    "407": "proxy refused",
    "418": "answered with status 418",
    "429": "asked too often .429.: wait a few minutes",
    "500": "out of order .500.: try again later",
    "503": "out of order .503.: try again later",
}


@pytest.mark.parametrize("day", DAYS)
def test_a_bad_day_is_a_sentence_and_leaves_nothing_half_written(day, stable_diffusion_folder, known, tmp_path):
    with hub.served(stable_diffusion_folder, day) as server:
        known(server.url)
        with pytest.raises(InputError, match=f"^the model o/x cannot be had.*{DAYS[day]}") as caught:
            source_folder("o/x")
        assert "\n" not in str(caught.value)
        server.day = "good"
        found = source_folder("o/x")
    for path in stable_diffusion_folder.rglob("*"):
        if path.is_file() and path.name != "README.md":
            assert (found / path.relative_to(stable_diffusion_folder)).read_bytes() == path.read_bytes()
    assert not list(tmp_path.rglob("*.incomplete"))


@pytest.mark.parametrize(
    ("url", "proxies", "words"),
    [
        ("http://127.0.0.1:1", {}, "it did not answer .Connection refused.: check the network and HF_ENDPOINT"),
        ("https://hub.invalid", {}, "it did not answer"),
        ("127.0.0.1:8080", {}, "no address: HF_ENDPOINT must be like https://"),
        ("huggingface.co", {}, "no address"),
        ("", {}, "no address"),
        ("https://hub.invalid", {"HTTPS_PROXY": "{}"}, "the proxy refused .407"),
        ("https://hub.invalid", {"HTTPS_PROXY": "http://u:secret@127.0.0.1:1"}, "refused.*the proxy that HTTPS_PROXY"),
        ("https://hub.invalid", {"HTTPS_PROXY": "ftp://127.0.0.1:1"}, "proxy cannot be used"),
        (
            "https://hub.invalid",
            {"ALL_PROXY": "socks5://127.0.0.1:1"},
            "SOCKS proxy, which needs socksio|did not answer",
        ),
    ],
)
def test_bad_networks(url, proxies, words, stable_diffusion_folder, known, monkeypatch):
    with hub.served(stable_diffusion_folder) as server:
        for name, value in proxies.items():
            monkeypatch.setenv(name, value.format(server.url))
        close_session()
        known(url)
        with pytest.raises(InputError, match=words) as caught:
            model_folder("o/x")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("token", ["\u201chf_abc\u201d", " ", ""])
def test_a_token_that_is_none(token, stable_diffusion_folder, known):
    with hub.served(stable_diffusion_folder) as server:
        known(server.url)
        with pytest.raises(InputError, match=r"your token is empty, or has characters that none has.*hf auth login"):
            fetched("model", "o/x", "model_index.json", lambda names: names, token=token)


def test_certificates_that_are_not_there(stable_diffusion_folder, known, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere.pem")
    close_session()
    known("https://hub.invalid")
    with pytest.raises(InputError, match=r"SSL_CERT_FILE names /nowhere\.pem, which is not there"):
        model_folder("o/x")
    close_session()


def test_an_untrusted_certificate():
    kind = type("ConnectError", (Exception,), {})
    error = kind("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: self-signed certificate (_ssl.c:1006)")
    assert "not trusted (self-signed certificate): let SSL_CERT_FILE name" in trouble(error, "o/x")


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EROFS, "the disk is read-only"),
        (errno.EACCES, "nothing may be written"),
    ],
)
def test_a_cache_that_cannot_be_written(number, words, stable_diffusion_folder, known, monkeypatch):
    def fail(*words, **options):
        raise OSError(number, "no", "/cache/blobs")

    monkeypatch.setattr("huggingface_hub.file_download.http_get", fail)
    with hub.served(stable_diffusion_folder) as server:
        known(server.url)
        with pytest.raises(InputError, match=f"the cache cannot be written, {words}.* ./cache/blobs.: let HF_HOME"):
            source_folder("o/x")


def test_the_cache_serves_when_the_hub_does_not(stable_diffusion_folder, known, monkeypatch, caplog):
    with hub.served(stable_diffusion_folder) as server:
        known(server.url)
        found = source_folder("o/x")
        for server.day in ("page", "500", "401"):
            assert source_folder("o/x") == found
        assert "the copy of the model o/x" in caplog.text
    caplog.clear()
    assert source_folder("o/x") == found
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    caplog.clear()
    assert source_folder("o/x") == found
    assert not caplog.text  # as it was asked for


@pytest.mark.parametrize(
    ("lost", "broken"),
    [
        ("vae", False),
        ("unet/diffusion_pytorch_model.safetensors", True),
        ("tokenizer", True),
        ("model_index.json", False),
    ],
)
def test_half_a_copy_is_not_used_and_completed_later(lost, broken, stable_diffusion_folder, known):
    with hub.served(stable_diffusion_folder) as server:
        known(server.url)
        found = source_folder("o/x")
        for path in [found / lost, *(found / lost).rglob("*")][::-1]:
            if not path.is_dir() and broken:
                path.resolve().unlink()  # a link that leads nowhere
            elif not path.is_dir():
                path.unlink()
        server.day = "500"
        with pytest.raises(InputError, match=r"out of order.*(incomplete .the model o/x|no copy is in)"):
            source_folder("o/x")
        server.day = "good"
        assert source_folder("o/x") == found
        assert all(path.is_file() for path in (found / lost,) if path.suffix)


def test_tokens_from_the_hub(known, tmp_path, generator):
    tokens = Tokens(torch.randn(3, 8, generator=generator))
    tokens.save_pretrained(tmp_path / "tokens")
    with hub.served(tmp_path / "tokens") as server:
        known(server.url)
        assert Tokens.from_pretrained("o/x").embedding.equal(tokens.embedding)
        assert list(server.sent) == ["tokens.safetensors"]
    assert Tokens.from_pretrained("o/x").embedding.equal(tokens.embedding)
    with hub.served(tmp_path / "tokens", "page") as server:
        known(server.url)
        with pytest.raises(InputError, match=r"the tokens o/y cannot be had.*web page"):
            Tokens.from_pretrained("o/y")
    with hub.served(tmp_path / "cache", more={"README.md": tmp_path / "tokens" / "README.md"}) as server:
        known(server.url)
        with pytest.raises(InputError, match="holds no tokens"):
            Tokens.from_pretrained("o/x", revision="main", cache_dir=tmp_path / "other")


def test_a_path_that_is_not_here_is_never_looked_up(known, tmp_path, monkeypatch):
    monkeypatch.setattr("keyorbit.diffusion.backends.folders.fetched", None)
    (tmp_path / "runs").mkdir()
    for name in ("./x", "../x", "a/b/c", "runs\\x", "~/x", "/nowhere", "x", "a/b.git", "a--b/c", "a/", "C:/x"):
        with pytest.raises(InputError, match="no model folder at"):
            model_folder(name)
    with pytest.raises(InputError, match="there is a folder runs here, but no runs/x; give a folder that is there"):
        model_folder("runs/x")


def test_the_command_line_says_it_in_one_sentence(stable_diffusion_folder, known, tmp_path):
    with hub.served(stable_diffusion_folder, "page") as server:
        known(server.url)
        said = answer("inspect", "--model", "o/x", "--json", tmp_path / "out.json")
    assert said.sentence
    assert "web page" in said.said
    assert not (tmp_path / "out.json").exists()


@pytest.mark.parametrize(
    ("name", "value"),
    [("HF_HUB_ETAG_TIMEOUT", "60s"), ("HF_HUB_DOWNLOAD_TIMEOUT", ""), ("HF_ENDPOINT", "http://h.org:99999")],
)
def test_variables_at_which_the_library_would_stop_are_told(name, value, command, monkeypatch, capsys):
    monkeypatch.setenv(name, value)
    assert command("dataset", "list") == 2
    assert f"the variable {name} cannot be '{value}'" in capsys.readouterr().err
