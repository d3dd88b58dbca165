"""Records are named tuples in all that matters."""

from __future__ import annotations

import pickle

import pytest

from entrypoint.record import Record


class Point(Record):
    x: int
    y: int = 0
    name: str = ""

    @property
    def sum(self) -> int:
        return self.x + self.y


def test_fields_are_given_by_position_or_by_name() -> None:
    assert Point(1) == Point(x=1) == Point(1, 0, "") == Point(name="", x=1)
    assert (Point(1, 2).x, Point(1, y=2).y, Point(1, 2).sum) == (1, 2, 3)
    assert repr(Point(1, name="a")) == "Point(x=1, y=0, name='a')"


@pytest.mark.parametrize(("values", "named"), [((), {}), ((1, 2, "", 4), {}), ((1,), {"x": 2}), ((1,), {"z": 2})])
def test_a_field_that_is_missing_unknown_or_given_twice_is_an_error(
    values: tuple[int, ...], named: dict[str, int]
) -> None:
    with pytest.raises(TypeError):
        Point(*values, **named)  # type: ignore[arg-type] # on purpose


def test_a_record_cannot_be_changed_only_copied() -> None:
    point = Point(1, 2)
    with pytest.raises(AttributeError):
        point.x = 2  # type: ignore[misc] # on purpose
    assert point._replace(y=3) == Point(1, 3)
    assert point == Point(1, 2)
    with pytest.raises(TypeError, match="Point has no z"):
        point._replace(z=1)


def test_a_record_can_be_hashed_and_pickled() -> None:
    point = Point(1, 2, "a")
    copy = pickle.loads(pickle.dumps(point, pickle.HIGHEST_PROTOCOL))
    assert copy == point
    assert type(copy) is Point
    assert len({copy, point}) == 1
