"""Tokens: where they go in the context, what they start from, and their file."""

import pytest
import torch
from safetensors.torch import save_file

from keyorbit.diffusion.tokens import Tokens
from keyorbit.diffusion.tokens_info import TokensInfo
from keyorbit.errors import InputError
from keyorbit.storage.checkpoint import save_checkpoint


def test_tokens_follow_the_text_in_every_item():
    tokens, context = Tokens(torch.randn(16, 8)), torch.randn(3, 77, 8)
    rows = tokens.append_to(context)
    assert rows.shape == (3, 93, 8)
    assert torch.equal(rows[:, :77], context)
    assert all(torch.equal(item[77:], tokens.embedding) for item in rows)


def test_a_context_of_another_width_is_refused():
    with pytest.raises(InputError, match=r"width 8 .* width 9"):
        Tokens(torch.randn(2, 8)).append_to(torch.randn(1, 77, 9))


def test_first_tokens_look_like_the_text(generator):
    text = torch.randn(4000, 8) * torch.linspace(0.5, 3, 8) + torch.linspace(-2, 2, 8)
    made = Tokens.initialise(text, 4000, generator).embedding
    torch.testing.assert_close(made.mean(0), text.mean(0), atol=0.2, rtol=0)
    torch.testing.assert_close(made.std(0), text.std(0), atol=0, rtol=0.1)


def test_the_generator_alone_decides():
    text, state = torch.randn(10, 4), torch.get_rng_state()
    first, again = (Tokens.initialise(text, 3, torch.Generator().manual_seed(5)).embedding for _ in range(2))
    assert torch.equal(first, again)
    assert torch.equal(torch.get_rng_state(), state)


def test_save_and_load_keep_everything(tmp_path):
    info = TokensInfo("tiny", "abc", ("a.attn2", "b.attn2"), 300, "isolated", 7, "0.1.0", {"steps": 5})
    tokens = Tokens(torch.randn(4, 6), info)
    tokens.save(tmp_path / "t.safetensors")
    back = Tokens.load(tmp_path / "t.safetensors")
    assert torch.equal(back.embedding, tokens.embedding)
    assert back.info == info
    assert [path.name for path in tmp_path.iterdir()] == ["t.safetensors"]


@pytest.mark.parametrize("change", ["half", "bfloat16", "double"])
def test_tokens_of_other_types_are_kept_and_read_in_float32(change, tmp_path):
    tokens = getattr(Tokens(torch.randn(4, 6), helpers=torch.randn(1, 6)), change)()
    tokens.save(tmp_path / "t.safetensors")
    back = Tokens.load(tmp_path / "t.safetensors")
    assert back.embedding.dtype == back.helpers.dtype == torch.float32
    assert torch.equal(back.embedding, tokens.embedding.float())
    assert tokens.append_to(torch.zeros(1, 77, 6)).dtype == torch.float32


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"info": {"version": "99.1.0", "new": 1}}, r"written by keyorbit 99\.1\.0; this is .*: upgrade"),
        (
            {"format": "keyorbit-tokens-2"},
            r"a later keyorbit than this, .* in the format keyorbit-tokens-2: upgrade",
        ),
        ({"format": "keyorbit-tokens-0"}, "format cannot be 'keyorbit-tokens-0'"),
        ({"info": {"version": "0.0.1", "new": 1}}, "has new"),
    ],
)
def test_tokens_of_a_later_version_ask_for_it(changes, words, tmp_path):
    header = {"format": "keyorbit-tokens-1", "info": {"version": "99.1.0"}}
    save_checkpoint(tmp_path / "t.safetensors", {"embedding": torch.zeros(2, 4)}, header)
    assert len(Tokens.load(tmp_path / "t.safetensors")) == 2  # what can be read is read
    save_checkpoint(tmp_path / "t.safetensors", {"embedding": torch.zeros(2, 4)}, header | {"info": {}} | changes)
    with pytest.raises(InputError, match=words):
        Tokens.load(tmp_path / "t.safetensors")


def test_unusable_files_are_named(tmp_path):
    with pytest.raises(InputError, match="no tokens at"):
        Tokens.load(tmp_path / "none.safetensors")
    (tmp_path / "text.safetensors").write_text("not a tensor")
    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors")
    Tokens(torch.full((2, 2), float("nan"))).save(tmp_path / "nan.safetensors")
    whole = tmp_path / "whole.safetensors"
    Tokens(torch.zeros(8, 64)).save(whole)
    (tmp_path / "cut.safetensors").write_bytes(whole.read_bytes()[:-100])
    for name in ("text", "other", "nan", "cut"):
        with pytest.raises(InputError, match=name):
            Tokens.load(tmp_path / f"{name}.safetensors")


def test_a_failing_save_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "t.safetensors"
    Tokens(torch.ones(1, 1)).save(path)

    def full(*args, **kwargs):
        raise OSError("No space left on device")

    monkeypatch.setattr("keyorbit.storage.checkpoint.save_file", full)
    with pytest.raises(InputError, match="No space left"):
        Tokens(torch.zeros(1, 1)).save(path)
    assert Tokens.load(path).embedding.item() == 1
    assert len(list(tmp_path.iterdir())) == 1
