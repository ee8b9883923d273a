"""What a call of the app's endpoints holds, checked against its types, and whether the files that it names are here."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass
from typing import Any, TypeVar

from keyorbit.app.calls import INPUTS, Call, Upload
from keyorbit.errors import InputError
from keyorbit.values import from_values, short

T = TypeVar("T")


class Refused(Exception):
    """The request is answered by a sentence, with this HTTP status."""

    def __init__(self, status: int, sentence: str) -> None:
        self.status, self.sentence = status, sentence
        super().__init__(sentence)


@dataclass(frozen=True)
class Endpoint:
    """A function of the app that can be called.

    Attributes:
        index: its number in Gradio.
        name: its name.
        states: number of its inputs that the server itself keeps; what is sent for them does not matter.
        public: whether programs may call it by its name; the page may call all.
    """

    index: int
    name: str
    states: int
    public: bool


def endpoints(config: Mapping[str, Any]) -> list[Endpoint]:
    """Return the endpoints of the configuration that Gradio serves its page."""
    states = {part["id"] for part in config["components"] if part["type"] == "state"}
    return [
        Endpoint(
            entry["id"], entry["api_name"], len(states & set(entry["inputs"])), entry["api_visibility"] == "public"
        )
        for entry in config["dependencies"]
        if entry["api_name"] in INPUTS
    ]


@dataclass(frozen=True)
class Checked:
    """A call that can be handed on.

    Attributes:
        values: the body of the request, without all that is not known.
        session: who calls; None for a visitor of this one call.
        files: the uploads that it names.
    """

    values: dict[str, Any]
    session: str | None
    files: list[str]


class Endpoints:
    """All endpoints. ``holds`` tells whether a path is that of a file that a visitor may name."""

    def __init__(self, known: list[Endpoint], holds: Callable[[str], bool]) -> None:
        self.known, self.holds = known, holds

    def call(self, values: Any, name: str | None, by_name: bool) -> Checked:
        """Check the body of a call with its inputs in their order.

        Args:
            values: the body.
            name: of the endpoint, by the request's address; None if it has none.
            by_name: whether the endpoint's number in the body does not matter.

        Raises:
            Refused: it is not what the endpoint takes.
        """
        call = request(Call, values)
        endpoint = self._endpoint(None if by_name else call.fn_index, name)
        names = [item.name for item in fields(INPUTS[endpoint.name])]
        least = sum(item.default is MISSING for item in fields(INPUTS[endpoint.name]))
        if not least <= len(call.data) <= len(names) + endpoint.states:
            listed = f" ({', '.join(names)})" if names else ""
            raise Refused(422, f"{endpoint.name} takes {len(names)} values{listed}, not {len(call.data)}")
        inputs, files = self._inputs(endpoint, dict(zip(names, call.data, strict=False)))
        body = {"data": [*inputs.values(), *[None] * endpoint.states], "fn_index": endpoint.index}
        optional = {"session_hash": call.session_hash, "trigger_id": call.trigger_id}
        body |= {key: value for key, value in optional.items() if value is not None}
        return Checked(body, call.session_hash, files)

    def named(self, values: Any, name: str) -> Checked:
        """Check the body of a call with its inputs by their names.

        Raises:
            Refused: it is not what the endpoint takes.
        """
        inputs, files = self._inputs(self._endpoint(None, name), values)
        return Checked(inputs, None, files)

    def _endpoint(self, index: int | None, name: str | None) -> Endpoint:
        for endpoint in self.known:
            if index == endpoint.index or (index is None and name == endpoint.name):
                return endpoint
        public = ", ".join(endpoint.name for endpoint in self.known if endpoint.public)
        wanted = short(name) if index is None else f"number {index}"
        raise Refused(404, f"there is no endpoint {wanted}; there are: {public}")

    def _inputs(self, endpoint: Endpoint, values: Any) -> tuple[dict[str, Any], list[str]]:
        try:
            inputs: Any = from_values(INPUTS[endpoint.name], values, endpoint.name, others=True)
        except InputError as error:
            raise Refused(422, str(error)) from error
        paths = [upload.path for upload in _uploads(inputs)]
        for path in paths:
            if not self.holds(path):
                raise Refused(
                    422,
                    f"{endpoint.name}: {short(path)} is no file that was uploaded here, or it was removed: upload it "
                    "to /gradio_api/upload and send the path in the answer; addresses are not fetched",
                )
        return asdict(inputs), paths


def request(kind: type[T], values: Any) -> T:
    """Check the body of a request.

    Raises:
        Refused: it is not of this kind.
    """
    try:
        return from_values(kind, values, "the request", others=True)
    except InputError as error:
        raise Refused(400, str(error)) from error


def _uploads(value: Any) -> Iterator[Upload]:
    if isinstance(value, Upload):
        yield value
    elif is_dataclass(value):
        for item in fields(value):
            yield from _uploads(getattr(value, item.name))
    elif isinstance(value, tuple):
        for part in value:
            yield from _uploads(part)
