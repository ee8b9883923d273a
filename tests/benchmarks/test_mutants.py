"""The mutation tester changes what computes, one thing at a time, and nothing else."""

from dataclasses import replace

import pytest

SOURCE = '''"""Text 1 + 2."""
__all__ = ["a", "b"]
Ways = dict[int, "3"]
NEAR: float = 0.5
WIDE = -2


@dataclass(frozen=True)
class Config:
    """Text."""

    size: "Float[Tensor, '4 4']" = 4


def f(x: "Float[Tensor, '3']", y: int = 7, *, on: bool = True) -> "Float[Tensor, '2']":
    """Text 1 < 2."""
    assert x > 9
    log.info("of %d", 1 + 2)
    if x <= y and not on:
        raise ValueError(f"{x + 1} is less than {2}")
    return x.abs().sum(dim=-1)[..., :3] * min(x, y)  # 1 + 2
'''
EXPECTED = {
    *("NEAR: float = 0.6", "NEAR: float = 0.4", "WIDE = 2", "WIDE = -3", "WIDE = -1"),
    *("size: \"Float[Tensor, '4 4']\" = 5", "size: \"Float[Tensor, '4 4']\" = 3"),
    *(
        "def f(y: int = 8, on: bool = True)",
        "def f(y: int = 6, on: bool = True)",
        "def f(y: int = 7, on: bool = False)",
    ),
    *("if x < y and not on:", "if x >= y and not on:", "if x <= y or not on:", "if x <= y and on:"),
    "return x.sum(dim=-1)[..., :3] * min(x, y)",
    "return x.abs().sum(dim=-2)[..., :3] * min(x, y)",
    "return x.abs().sum(dim=-1)[..., :2] * min(x, y)",
    "return x.abs().sum(dim=-1)[..., :3] / min(x, y)",
    "return x.abs().sum(dim=-1)[..., :3] * max(x, y)",
}


@pytest.fixture(scope="session")
def mutants(benchmark_script):
    return benchmark_script("mutants")


def short(line):
    """Without what stands in every line of the function's head."""
    line = line.strip().removesuffix("  # 1 + 2")
    return (
        line.replace("x: \"Float[Tensor, '3']\", ", "").replace("*, ", "").removesuffix(" -> \"Float[Tensor, '2']\":")
    )


def test_every_change_of_a_small_source(mutants):
    source = SOURCE.encode()
    found = [m for place in mutants.mutants_of(source, "group", "a.py") for m in place]
    lines = {short(mutants.mutated(source, m).decode().splitlines()[m.line - 1]) for m in found}
    assert lines == EXPECTED
    assert len(found) == len(EXPECTED)


def test_a_draw_is_the_same_again_and_begins_as_a_longer_one(mutants):
    drawn = mutants.draw(12, 0)
    assert [m.group for m in drawn[:4]] == list(mutants.GROUPS)
    assert len({m.key for m in drawn}) == 12
    assert mutants.draw(8, 0) == drawn[:8]
    assert mutants.draw(12, 1) != drawn


def test_results_are_kept_and_equivalent_mutants_do_not_count(mutants, tmp_path):
    drawn = mutants.draw(4, 0)
    ended = [*(replace(m, outcome="killed") for m in drawn[:3]), replace(drawn[3], outcome="survived")]
    mutants.write_results(tmp_path / "mutants.json", 0, ended)
    known = mutants.read_results(tmp_path / "mutants.json")
    # All are known: no test runs.
    assert list(mutants.judge(drawn, known, mutants.GROUPS)) == ended
    assert "| all | 3 | 4 | 75 % |" in mutants.table(ended)
    noted = [*ended[:3], replace(ended[3], note="rounding")]
    assert "| all | 3 | 3 | 100 % |" in mutants.table(noted)
    assert mutants.read_results(tmp_path / "none.json") == {}
