"""What is said where there is nothing at a path."""

from pathlib import Path

import pytest

from keyorbit.errors import InputError
from keyorbit.objects.in_memory import as_object
from keyorbit.objects.paths import check_mesh, check_picture, nothing_at, object_paths


@pytest.mark.parametrize("look", [object_paths, check_picture, check_mesh])
def test_an_address_is_no_path(look):
    with pytest.raises(InputError, match=r"^https://a\.org/b/c\.png is an address on a network, .*: download it"):
        look(Path("https://a.org/b/c.png"))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("s3://bucket/a.png", "s3://bucket/a.png is an address on a network"),
        ("file:///home/a.png", "give the path alone, /home/a.png"),
        ("C:/none.png", "there is no picture at C:/none.png"),
        ("a:b", "there is no picture at a:b"),
    ],
)
def test_what_is_missing_is_named_as_it_was_given(given, said):
    assert said in str(nothing_at(Path(given), "picture"))


def test_a_picture_in_python_too():
    with pytest.raises(InputError, match=r"^http://127\.0\.0\.1:9/b\.png cannot be reached"):
        as_object("http://127.0.0.1:9/b.png")
