"""Tokens go through the Hub's own mixin: to a folder and back, and up; nothing here reaches a network."""

import shutil
from dataclasses import replace

import pytest
import torch
from huggingface_hub import ModelHubMixin

from keyorbit.diffusion.tokens import Tokens
from keyorbit.diffusion.tokens_info import TokensInfo
from keyorbit.errors import InputError

INFO = TokensInfo(
    "tiny",
    "abc",
    ("a.attn2", "b.attn2"),
    300,
    "isolated",
    3,
    "0.1",
    {"steps": 9},
    objects=60,
    libraries={"torch": "2.13.0"},
)


def test_tokens_come_back_from_a_folder(tmp_path):
    tokens = Tokens(torch.randn(5, 8), INFO)
    assert isinstance(tokens, ModelHubMixin)
    tokens.save_pretrained(tmp_path / "chairs")
    assert {path.name for path in (tmp_path / "chairs").iterdir()} == {"tokens.safetensors", "config.json", "README.md"}
    back = Tokens.from_pretrained(tmp_path / "chairs")
    torch.testing.assert_close(back.embedding, tokens.embedding, rtol=0, atol=0)
    assert back.info == INFO
    card = (tmp_path / "chairs" / "README.md").read_text()
    for words in ("library_name: keyorbit", "# 5 keypoint tokens", "60 objects", "| seed | 3 |", "| torch | 2.13.0 |"):
        assert words in card


def test_pushing_uploads_the_file_and_its_card(tmp_path, monkeypatch):
    class Repo:
        repo_id = "me/chairs"

    monkeypatch.setattr("huggingface_hub.HfApi.create_repo", lambda self, **options: Repo)

    def upload(self, *, repo_id, folder_path, **options):
        shutil.copytree(folder_path, tmp_path / repo_id)
        return repo_id

    monkeypatch.setattr("huggingface_hub.HfApi.upload_folder", upload)
    tokens = Tokens(torch.randn(2, 8), INFO)
    tokens.push_to_hub("me/chairs", model_card_kwargs={"repo_id": "me/chairs"})
    assert 'from_pretrained("me/chairs")' in (tmp_path / "me/chairs/README.md").read_text()
    assert torch.equal(Tokens.from_pretrained(tmp_path / "me/chairs").embedding, tokens.embedding)


def test_tokens_from_an_older_file_need_no_provenance(tmp_path):
    tokens = Tokens(torch.randn(2, 8), replace(INFO, objects=0, libraries={}))
    tokens.save_pretrained(tmp_path)
    assert "| found on | unknown |" in (tmp_path / "README.md").read_text()


def test_what_is_not_there_gets_a_sentence(tmp_path):
    with pytest.raises(InputError, match="no tokens at"):
        Tokens.from_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"the tokens me/none cannot be had.*local_files_only is set.*no copy is in"):
        Tokens.from_pretrained("me/none", local_files_only=True, cache_dir=tmp_path)
    with pytest.raises(InputError, match="no tokens at a/b/c; give a folder"):
        Tokens.from_pretrained("a/b/c")
