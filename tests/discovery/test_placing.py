"""Where marked points are, against a sphere whose surface and pictures are known."""

import pytest
import torch

from keyorbit.discovery.placing import place_marks
from keyorbit.errors import InputError
from keyorbit.geometry.cameras import orbit_cameras
from keyorbit.geometry.heatmaps import pixel_centers
from keyorbit.geometry.rigs import zero123plus_cameras
from keyorbit.objects.marks import Mark

CAMERAS, RADIUS, SIDE = zero123plus_cameras(), 0.3, 96
POINT = torch.nn.functional.normalize(torch.tensor([0.6, 0.3, 0.4]), dim=0) * RADIUS


def ball(cameras):
    """True where a camera sees a ball about the origin: its ray passes the origin within the radius."""
    xy = pixel_centers(SIDE, SIDE)
    inner = cameras.intrinsics[:, None, None]
    beside = (xy - inner[..., :2, 2]) / inner[..., [0, 1], [0, 1]]
    rays = torch.nn.functional.normalize(torch.cat([beside, torch.ones_like(beside[..., :1])], -1), dim=-1)
    origin = cameras.world_to_camera[:, :3, 3][:, None, None]
    return torch.linalg.cross(rays, origin.expand_as(rays)).norm(dim=-1) < RADIUS


MASKS = ball(CAMERAS)


def clicks(*views, point=POINT, name="spot"):
    xy = CAMERAS.project(point[None])[:, 0]
    return [Mark(name, "ball", view, tuple(xy[view].tolist())) for view in views]


def facing():
    """The views by how much they face the point, the most first."""
    return (-(CAMERAS.directions @ POINT)).argsort(descending=True).tolist()


def test_clicks_in_two_views_meet_in_the_point():
    first, second, *_, last = facing()
    (found,) = place_marks(clicks(first, second), "ball", MASKS, CAMERAS)
    assert (found.object, found.name, found.how) == ("ball", "spot", "triangulated")
    torch.testing.assert_close(torch.tensor(found.xyz), POINT, atol=1e-4, rtol=0)
    torch.testing.assert_close(torch.tensor(found.xy), CAMERAS.project(POINT[None])[:, 0], atol=1e-4, rtol=0)
    assert found.miss < 1e-4
    assert [found.seen[view] for view in (first, second, last)] == [True, True, False]
    assert found.words.startswith("triangulated, misses its clicks by 0.0%")


def test_one_click_is_lifted_to_the_near_side_of_the_hull():
    (found,) = place_marks(clicks(facing()[0]), "ball", MASKS, CAMERAS)
    assert found.how == "lifted"
    assert (torch.tensor(found.xyz) - POINT).norm() < 0.1  # the hull of six silhouettes is a little larger
    assert torch.tensor(found.xyz).norm() > 0.95 * RADIUS


def test_a_place_in_space_is_projected_and_a_hidden_click_is_not_seen():
    (found,) = place_marks([Mark("spot", xyz=tuple(POINT.tolist()))], "ball", MASKS, CAMERAS)
    assert (found.how, found.miss) == ("given", 0.0)
    first, second, *_ = facing()
    one, other = clicks(first, second)
    hidden = Mark("spot", "ball", other.view, other.xy, hidden=True)
    (found,) = place_marks([one, hidden], "ball", MASKS, CAMERAS)
    assert [found.seen[view] for view in (first, second)] == [True, False]


def test_the_input_picture_is_one_more_view_where_its_camera_is_known():
    picture = orbit_cameras([20.0], [10.0])
    there = Mark("spot", "ball", None, tuple(picture.project(POINT[None])[0, 0].tolist()))
    (found,) = place_marks([there, *clicks(facing()[0])], "ball", MASKS, CAMERAS, picture)
    torch.testing.assert_close(torch.tensor(found.xyz), POINT, atol=1e-4, rtol=0)
    assert found.picture_xy == there.xy
    (found,) = place_marks([there], "ball", MASKS, CAMERAS, picture)
    assert found.how == "lifted"
    assert (torch.tensor(found.xyz) - POINT).norm() < 0.1


def test_in_a_single_view_places_stay_in_the_picture():
    marks = [Mark("a", xy=(0.5, 0.5)), Mark("b", view=0, xy=(0.45, 0.5))]
    first, second = place_marks(marks, "ball", MASKS[:1], None)
    assert (first.how, first.xyz, first.xy, first.picture_xy) == ("flat", None, ((0.5, 0.5),), (0.5, 0.5))
    assert second.picture_xy is None


@pytest.mark.parametrize(
    ("marks", "words"),
    [
        ([Mark("spot", view=0, xy=(0.02, 0.02))], "'spot', in view 0, is beside the object by .*%"),
        ([Mark("spot", xyz=(0.4, 0.0, 0.0))], "from where it is in space, is beside the object"),
        ([Mark("spot", xyz=(1e30, 0.0, 0.0))], r"far outside the views, at xyz \(1e\+30, 0, 0\): give it in the world"),
        ([Mark("spot", xyz=(0.0, -40.0, 7.0))], "the cameras, which see a sphere of radius 0.5 about"),
        ([Mark("spot", view=6, xy=(0.5, 0.5))], "is marked in view 6; there are views 0 to 5"),
        ([Mark("spot", xy=(0.5, 0.5))], "on the input picture, whose camera is not known: mark it in a view"),
        (
            [Mark("spot", view=0, xy=(0.5, 0.4)), Mark("spot", view=2, xy=(0.5, 0.6))],
            "in view 0 and in view 2, and these are not one point: they miss each other by .*%",
        ),
    ],
)
def test_what_is_no_point_of_the_object(marks, words):
    with pytest.raises(InputError, match=words):
        place_marks(marks, "ball", MASKS, CAMERAS)


@pytest.mark.parametrize(
    ("marks", "words"),
    [
        ([Mark("spot", xyz=(0.0, 0.0, 0.0))], "knows nothing: give xy"),
        ([Mark("spot", xy=(0.5, 0.5)), Mark("spot", view=0, xy=(0.5, 0.5))], "which are one picture"),
        ([Mark("spot", view=1, xy=(0.5, 0.5))], "there are views 0 only"),
        ([Mark("spot", xy=(0.02, 0.02))], "beside the object"),
    ],
)
def test_what_a_single_view_has_not(marks, words):
    with pytest.raises(InputError, match=words):
        place_marks(marks, "ball", MASKS[:1], None)


def test_a_click_a_little_beside_the_object_is_meant_for_its_edge():
    edge = MASKS[0].nonzero().float().add(0.5).div(SIDE)
    left = edge[edge[:, 1].argmin()].flip(0)
    near, far = (Mark("spot", view=0, xy=(float(left[0]) - by, float(left[1]))) for by in (0.04, 0.08))
    (found,) = place_marks([near], "ball", MASKS, CAMERAS)
    assert abs(torch.tensor(found.xyz).norm() - RADIUS) < 0.1
    with pytest.raises(InputError, match="beside the object by 8%"):
        place_marks([far], "ball", MASKS, CAMERAS)


def test_a_generated_view_may_show_a_part_in_the_colour_of_the_ground():
    view = facing()[0]
    (whole,) = place_marks(clicks(view), "ball", MASKS, CAMERAS)
    holed, (x, y) = MASKS.clone(), CAMERAS.project(POINT[None])[view, 0]
    away = (pixel_centers(SIDE, SIDE) - torch.stack([x, y])).norm(dim=-1)
    holed[view] &= away > 0.12
    with pytest.raises(InputError, match=f"in view {view}, is beside the object by 12%"):
        place_marks(clicks(view), "ball", holed, CAMERAS)
    (found,) = place_marks(clicks(view), "ball", holed, CAMERAS, generated=True)
    assert found.xyz == pytest.approx(whole.xyz, abs=1e-6)
    with pytest.raises(InputError, match="is beside the object by"):
        place_marks([Mark("spot", view=view, xy=(0.02, 0.02))], "ball", holed, CAMERAS, generated=True)
    elsewhere = MASKS.clone()
    elsewhere[facing()[-1]] = False
    elsewhere[facing()[-1], :4, :4] = True
    with pytest.raises(InputError, match="may contradict each other: mark it in another view, or in a single one"):
        place_marks(clicks(*facing()[:2]), "ball", elsewhere, CAMERAS, generated=True)
