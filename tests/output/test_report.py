"""The report is one file that asks for nothing, shows what was found where it was found, and its numbers are right."""

import base64
import io
import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from keyorbit.detection.confidence import Confidence
from keyorbit.detection.found import Detection
from keyorbit.diffusion.tokens import Tokens
from keyorbit.diffusion.tokens_info import TokensInfo
from keyorbit.errors import InputError
from keyorbit.geometry.hull_mesh import hull_mesh
from keyorbit.geometry.keypoints import Keypoints2D
from keyorbit.geometry.rigs import zero123plus_cameras
from keyorbit.objects.dataset import ObjectViews, Truth
from keyorbit.output.page.charts import charts
from keyorbit.output.page.inputs import RunFacts, read_scores
from keyorbit.output.page.panels import heat_strip, make_panel, panel_page, render_panel
from keyorbit.output.page.report import Figure, read_run, report_html, run_objects
from keyorbit.output.palette import palette

HISTORY = [{"step": float(i), "total": 1 / i, "geometric": 0.5 / i, "seconds": 0.1 * i} for i in range(1, 41)]
NAMES = {"lost": 0.1, "sure": 0.9, "middle": 0.6}
FIGURES = [Figure("reprojection error, %", "2.8", "40.9", True), Figure("landmark error, %", "14.4", "52.7", True)]


@pytest.fixture
def thing(generator):
    """Three keypoints at known places, and two landmarks, of which one is not known."""
    cameras = zero123plus_cameras("v1.2")
    xyz = torch.tensor([[0.1, 0.2, 0.3], [0.0, -0.1, -0.2], [-0.2, 0.0, 0.1]])
    flat = Keypoints2D(cameras.project(xyz), torch.ones(6, 3), cameras, torch.rand(3, 2), torch.tensor([1.0, 0.05, 1]))
    points = flat.triangulate()
    heat, given = torch.rand(6, 3, 8, 8, generator=generator), torch.rand(3, 8, 8, generator=generator)
    found = Detection(
        "a <b>thing</b>",
        Image.new("RGB", (40, 30), "red"),
        torch.rand(6, 3, 16, 16, generator=generator),
        torch.ones(6, 16, 16) > 0,
        heat,
        flat,
        points,
        None,
        given,
    )
    known, visible = torch.tensor([True, False]), torch.ones(7, 2) > 0
    truth = Truth(("top & tip", "none"), (), xyz[:2] + torch.tensor([0.03, 0, 0]), known, torch.rand(7, 2, 2), visible)
    return found, truth


@pytest.fixture
def run(tmp_path):
    info = TokensInfo("tiny", "abc", ("a.attn2",), 300, version="0.1", settings={"steps": 40, "weights": {"a": 1}})
    folder = tmp_path / "chairs"
    folder.mkdir()
    Tokens(torch.zeros(3, 8), info).save(folder / "tokens.safetensors")
    (folder / "run.json").write_text(json.dumps({"objects": 60, "data": "gone", "seconds": 7.0}))
    (folder / "losses.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in HISTORY))
    return read_run(folder)


def test_a_panel_has_every_keypoint_on_every_picture_where_it_was_found(thing):
    found, truth = thing
    panel = make_panel(found, truth)
    assert [tile.title for tile in panel.tiles] == ["input", *(f"view {i}" for i in range(6))]
    places = np.array([[(mark.x, mark.y) for mark in tile.marks] for tile in panel.tiles])
    expected = torch.cat([found.keypoints_2d.input_xy[None], found.keypoints_2d.xy])
    np.testing.assert_allclose(places, 100 * expected, atol=0.01)
    assert [mark.faint for mark in panel.tiles[0].marks] == [False, True, False]
    assert [name for tile in panel.tiles for name, _, _ in tile.landmarks] == ["top & tip"] * 7
    # The landmark lies 0.03 from keypoint 0: 3 % of the object's size.
    assert dict(panel.facts)["landmark to nearest keypoint, mean"].startswith("3.0 %")


def test_views_stand_in_rings_beside_the_input_and_numbers_beside_crowded_points(thing):
    found, _ = thing
    panel = make_panel(found)
    assert [tile.place and (tile.place.row, tile.place.half) for tile in panel.tiles[:3]] == [None, (0, 0), (1, 1)]
    assert (panel.first, panel.halves) == (2, 9)
    page = render_panel(panel)
    assert [re.search(r'class="ko-tile( ko-given)?"( style="--row:1;--half:3")?', page).group(1)] == [" ko-given"]
    assert page.count('class="ko-tile"') == page.count('class="ko-where"') == 6
    assert 'class="ko-tile" style="--row:2;--half:8"' in page
    # One of the input's keypoints is faint: its number is shown when it is chosen. All on one place: they stand apart.
    assert [mark.label is None for mark in panel.tiles[0].marks] == [False, True, False]
    assert page.count(" ko-quiet") == 1
    flat = found.keypoints_2d
    close = replace(found, keypoints_2d=replace(flat, xy=torch.full_like(flat.xy, 0.5)))
    marks = make_panel(close).tiles[1].marks
    assert len({mark.label for mark in marks}) == 3
    assert render_panel(make_panel(close)).count('class="ko-lead"') == 18
    # Without cameras, in a plain grid.
    assert make_panel(replace(found, keypoints_2d=replace(flat, cameras=None), keypoints_3d=None)).halves == 0


def test_names_that_would_cover_others_wait_until_they_are_chosen(thing):
    found, _ = thing
    flat = found.keypoints_2d
    long = replace(found, names=("upper left back", "rear left leg " * 5, "seat"))
    pages = [long, replace(long, keypoints_2d=replace(flat, xy=flat.xy.clone().fill_(0.5)))]
    apart, close = (make_panel(page).tiles[1].marks for page in pages)
    assert [mark.called.clear for mark in apart] == [True] * 3
    for mark in (*apart, *close):
        assert 0 <= mark.x + mark.called.x <= mark.x + mark.called.x + mark.called.length <= 100
    assert apart[1].called.length == 100
    crowded = replace(found, names=("rear left leg " * 5,) * 3)
    many = replace(crowded, keypoints_2d=replace(flat, xy=flat.xy.clone().fill_(0.02)))
    panel = make_panel(many)
    assert [sum(mark.called.clear for mark in tile.marks) for tile in panel.tiles[1:]] == [1] * 6
    assert render_panel(panel).count('class="ko-called ko-crowded"') >= 12


def test_a_panel_is_a_page_of_its_own_that_asks_for_nothing(thing):
    found, _ = thing
    page = panel_page(make_panel(found))
    assert page.lstrip().startswith("<!doctype html>")
    assert "3 keypoints on a &lt;b&gt;thing&lt;/b&gt;" in page
    assert render_panel(make_panel(found)).split("<section")[1].split("</section>")[0] in page
    assert re.findall(r"""(?:src|href)=["'](?!data:)""", page) == []
    assert "http" not in re.sub(r"http-equiv", "", page.split("<script>")[0])


def test_the_scene_has_the_hull_in_the_colours_of_the_views(thing):
    found, _ = thing
    assert json.loads(make_panel(found).scene)["solid"] is None  # outlines of everything
    masks, views = torch.zeros(6, 48, 48, dtype=torch.bool), torch.full((6, 3, 48, 48), 0.5)
    masks[:, 14:34, 14:34] = True
    red = torch.tensor([0.9, 0.1, 0.2])
    seen = replace(found, masks=masks, views=torch.where(masks[:, None], red[None, :, None, None], views))
    solid = json.loads(make_panel(seen).scene)["solid"]
    raw = {name: base64.b64decode(solid[name]) for name in ("places", "quads", "colors")}
    places = np.frombuffer(raw["places"], "<u2").reshape(-1, 3) / 65535 * solid["size"] + solid["low"]
    quads, colors = np.frombuffer(raw["quads"], "<u2").reshape(-1, 4), np.frombuffer(raw["colors"], np.uint8)
    np.testing.assert_allclose(places, hull_mesh(masks, found.keypoints_2d.cameras, 40).vertices, atol=1e-4)
    assert quads.max() == len(places) - 1
    # The ground beside the object does not mix in.
    assert np.abs(colors.reshape(-1, 3) - 255 * red.numpy()).max() < 1


def test_how_likely_a_keypoint_is_at_its_part_is_said_in_words(thing):
    found, _ = thing
    told = make_panel(replace(found, confidence=Confidence(0.9, torch.tensor([0.95, 0.5, 0.1]))))
    assert [row.trust for row in told.rows] == ["very likely (95%)", "perhaps (50%)", "unlikely (10%)"]
    assert "<td>very likely (95%)</td>" in render_panel(told)
    assert {row.trust for row in make_panel(found).rows} == {""}
    assert "at its part" not in render_panel(make_panel(found))


def test_keypoints_of_an_object_that_the_tokens_do_not_know_are_empty_rings_under_a_sentence(thing):
    found, truth = thing
    chance = torch.tensor([0.1, 0.1, 0.1])
    for known, hollow in ((0.2, True), (0.6, False)):
        seen = replace(found, confidence=Confidence(known, chance))
        panel = make_panel(seen, truth)
        assert {mark.hollow for tile in panel.tiles for mark in tile.marks} == {hollow}
        assert panel.trust == (seen.confidence.words, seen.confidence.verdict)
        page = render_panel(panel)
        assert f'<p class="ko-trust ko-{seen.confidence.verdict}">these tokens ' in page
        assert ("ko-hollow" in page) == hollow
        assert (dict(panel.facts).get("keypoints") == "not to be trusted") == hollow
        assert all(point["faint"] for point in json.loads(panel.scene)["points"]) == hollow


def test_views_that_nobody_annotated_show_no_landmarks(thing):
    found, truth = thing
    few = replace(truth, keypoints_2d=truth.keypoints_2d[:3], visible=truth.visible[:3])
    assert [len(tile.landmarks) for tile in make_panel(found, few).tiles] == [1, 1, 1, 0, 0, 0, 0]


def test_the_scene_has_points_in_their_colours_and_views_before_their_cameras(thing):
    found, truth = thing
    scene = json.loads(make_panel(found, truth, [(0, 2)]).scene)
    assert [p["color"] for p in scene["points"]] == palette(3)
    np.testing.assert_allclose([p["xyz"] for p in scene["points"]], found.keypoints_3d.xyz, atol=1e-4)
    assert scene["edges"] == [[0, 2]]
    assert [entry["name"] for entry in scene["landmarks"]] == ["top & tip"]
    cameras = found.keypoints_2d.cameras
    for i, view in enumerate(scene["frusta"]):
        assert view["tile"] == i + 1
        np.testing.assert_allclose(view["tip"], cameras.centers[i].expand(4, 3), atol=1e-3)
        corners = cameras.project(torch.tensor(view["rim"]))[i]
        np.testing.assert_allclose(corners, [[0, 0], [1, 0], [1, 1], [0, 1]], atol=2e-3)


def test_heatmaps_lie_side_by_side_each_to_its_maximum():
    maps = torch.zeros(3, 4, 4)
    maps[0, 1, 2], maps[1, 3, 0] = 0.5, 0.001
    code = heat_strip(maps).split(",")[1]
    strip = np.asarray(Image.open(io.BytesIO(base64.b64decode(code))).convert("RGBA"))
    assert strip.shape == (4, 12, 4)
    assert (np.argwhere(strip[..., 3] == 255) == [[1, 2], [3, 4]]).all()
    assert (strip[:, 8:, 3] == 0).all()


def test_the_page_is_whole_and_asks_for_nothing(run, thing):
    found, truth = thing
    shown = ObjectViews("thing", found.input_image, truth=truth)
    html = report_html(run, [found], [shown], FIGURES, 12)
    assert "<b>3 keypoints</b>" in html
    assert "60 objects" in html
    assert "2.8" in html
    assert "52.7" in html
    assert "weights.a" in html
    assert "a &lt;b&gt;thing" in html
    assert "<b>thing" not in html
    addresses = re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?([^"')\s>]+)""", html)
    assert addresses
    assert [a for a in addresses if not a.startswith(("data:", "${"))] == []
    assert "http://" not in html.replace("http://www.w3.org", "")
    assert "https://" not in html


def test_a_page_without_objects_says_how_to_give_some(run):
    assert "keyorbit report RUN DATA" in report_html(run, [], [])


def test_the_runs_own_pictures_are_shown_as_they_were_cut_out_for_it(run, tmp_path):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    ground = np.random.default_rng(0).integers(0, 99, (40, 60, 3), np.uint8)
    for name in ("cut", "kept"):
        Image.fromarray(ground).save(pictures / f"{name}.png")
    cut_out = Image.fromarray(np.dstack([ground, np.zeros((40, 60), np.uint8)]))
    cut_out.paste((250, 200, 0, 255), (10, 10, 30, 30))
    (run.folder / "cutouts").mkdir(exist_ok=True)
    cut_out.save(run.folder / "cutouts" / "cut.png")
    of_pictures = replace(run, about=RunFacts(str(pictures)))
    things = list(run_objects(of_pictures, (), 4))
    assert [thing.cut_out and thing.cut_out.by for thing in things] == ["mask", None]
    # A cache has no pictures.
    (pictures / "index.json").write_text("{}")
    assert run_objects(of_pictures, (), 4) == []


def test_the_objects_that_the_tokens_know_best_come_first(run, thing):
    found, _ = thing
    chance = torch.full((3,), 0.5)
    many = [replace(found, name=name, confidence=Confidence(known, chance)) for name, known in NAMES.items()]
    things = [ObjectViews(name, found.input_image) for name in NAMES]
    page = report_html(run, many, things)
    order = re.findall(r'<section class="ko-panel"[^>]*aria-label="(\w+)"', page)
    assert order == ["sure", "middle", "lost"]
    assert "know best come first" in page
    # Where that is not known, they stay as they are.
    page = report_html(run, [replace(one, confidence=None) for one in many], things)
    assert re.findall(r'<section class="ko-panel"[^>]*aria-label="(\w+)"', page) == list(NAMES)


def test_charts_start_and_end_where_the_losses_do():
    made = charts(HISTORY)
    assert [chart.name for chart in made] == ["total", "geometric"]
    points = np.array([p.split(",") for p in made[0].mean.split()], float)
    assert points[0, 0] == 0
    assert points[-1, 0] == 300
    assert (np.diff(points[:, 1]) >= 0).all()  # down the page is down in value
    assert charts([]) == []


def test_unusable_runs_are_named(tmp_path):
    with pytest.raises(InputError, match="keyorbit discover"):
        read_run(tmp_path / "none")
    (tmp_path / "checkpoint.safetensors").write_bytes(b"")
    with pytest.raises(InputError, match="not finished"):
        read_run(tmp_path)
    for words in ("{}", "[]", "oh"):
        (tmp_path / "scores.json").write_text(words)
        with pytest.raises(InputError, match=r"scores\.json"):
            read_scores(tmp_path / "scores.json")


def test_a_single_view_has_no_scene(thing):
    found, _ = thing
    flat = Keypoints2D(found.keypoints_2d.xy[:1], found.keypoints_2d.score[:1])
    single = Detection("one", found.input_image, found.views[:1], found.masks[:1], found.heatmaps[:1], flat, None)
    panel = make_panel(single)
    assert panel.scene is None
    assert "<canvas" not in render_panel(panel)
