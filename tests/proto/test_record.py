"""Records: to a reader of the code, and to whoever uses one, what `typing.NamedTuple` makes."""

from __future__ import annotations

import copy
import pickle
from typing import NamedTuple

import pytest

from headrace_proto.record import Record


class Place(Record):
    """Where something is."""

    x: int
    y: float = 0.5
    """Upwards."""
    label: str | None = None

    def __str__(self) -> str:
        return f"{self.label} at {self.x}"

    @property
    def far(self) -> bool:
        """Whether it is."""
        return self.x > 9

    @classmethod
    def origin(cls) -> Place:
        """Where all begins."""
        return cls(0)


class Typed(NamedTuple):
    """The same, as `typing` makes it."""

    x: int
    y: float = 0.5
    label: str | None = None


def test_a_record_is_a_tuple_with_names() -> None:
    """By position or by name, with its defaults; and it has what named tuples have."""
    place = Place(3, label="here")
    assert place == Place(x=3, y=0.5, label="here")
    assert tuple(place) == (3, 0.5, "here")
    assert place._fields == Typed._fields
    assert place._field_defaults == Typed._field_defaults
    assert place._asdict() == Typed(3, label="here")._asdict()
    assert place._replace(x=10).far
    assert repr(place) == repr(Typed(3, label="here")).replace("Typed", "Place")
    assert not hasattr(place, "__dict__")


def test_a_record_keeps_its_methods_and_its_names() -> None:
    """What else its class statement says."""
    assert str(Place(3, label="here")) == "here at 3"
    assert Place.origin() == (0, 0.5, None)
    assert (Place.__name__, Place.__module__, Place.__doc__) == ("Place", __name__, "Where something is.")


def test_a_record_travels() -> None:
    """Pickled and copied, it is itself again."""
    place = Place(3, label="here")
    for again in (pickle.loads(pickle.dumps(place)), copy.deepcopy(place)):
        assert (again, type(again)) == (place, Place)


@pytest.mark.parametrize("given", [{}, {"x": 1, "z": 2}, {"y": 1.0}])
def test_a_record_refuses_what_it_has_no_field_for(given: dict[str, int]) -> None:
    """Files of JSON are checked by that."""
    with pytest.raises(TypeError):
        Place(**given)  # type: ignore[arg-type]
