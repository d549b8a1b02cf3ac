import pytest

from shared.errors import PermissionDenied, Unauthenticated
from shared.identity.static import identify
from shared.settings import CallerSettings, Settings


def settings(**environ: str) -> CallerSettings:
    return Settings.read(environ).caller


KEYS = settings(COMPANION_API_KEYS="sk-ann-1234567890=ann,short=bob", COMPANION_LOCAL_OWNER="local")
LOCAL = settings(COMPANION_LOCAL_OWNER="local")


@pytest.mark.parametrize("header", ["Bearer sk-ann-1234567890", "bearer  sk-ann-1234567890 "])
def test_a_static_key_names_its_owner(header: str) -> None:
    assert identify(KEYS, {"authorization": header}).owner == "ann"


def test_another_key_is_refused_and_shown_masked() -> None:
    with pytest.raises(Unauthenticated, match=r"Incorrect API key provided: sk-\*{8}wxyz\.") as caught:
        identify(KEYS, {"authorization": "Bearer sk-eve-abcdefghwxyz"})

    assert caught.value.code == "invalid_api_key"


def test_a_short_key_is_not_shown_at_all() -> None:
    with pytest.raises(Unauthenticated, match=r": \*{8}\."):
        identify(KEYS, {"authorization": "Bearer eve"})


@pytest.mark.parametrize("headers", [{}, {"authorization": "sk-ann-1234567890"}, {"authorization": "Bearer "}])
def test_no_key_is_refused_even_where_there_is_a_local_owner(headers: dict[str, str]) -> None:
    with pytest.raises(Unauthenticated, match="You didn't provide an API key"):
        identify(KEYS, {"host": "127.0.0.1", **headers})


@pytest.mark.parametrize("host", ["127.0.0.1:7071", "localhost", "[::1]:7071"])
def test_the_local_owner_needs_no_key_on_this_machine(host: str) -> None:
    assert identify(LOCAL, {"host": host, "authorization": "Bearer anything"}).owner == "local"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"host": "evil.example"},
        {"host": "["},
        {"host": "127.0.0.1", "origin": "https://evil.example"},
        {"host": "127.0.0.1", "origin": "null"},
        {"host": "127.0.0.1.evil.example"},
    ],
)
def test_the_local_owner_is_not_reached_through_another_name_or_page(headers: dict[str, str]) -> None:
    with pytest.raises(PermissionDenied):
        identify(LOCAL, headers)


def test_with_nothing_set_nobody_gets_in() -> None:
    with pytest.raises(Unauthenticated, match="COMPANION_API_KEYS"):
        identify(settings(), {"host": "127.0.0.1"})
