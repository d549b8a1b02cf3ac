"""Broken, stolen and forged credentials, through the whole edge: none of them is let in."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shared.clock import ManualClock
from shared.errors import Unauthenticated
from shared.identity import guests
from shared.identity.oidc import Oidc
from shared.identity.service import authenticate
from shared.settings import Secret
from tests.owners import ANN, service
from tests.unit.identity.issuer import (
    AUDIENCE,
    EC_KEY,
    ISSUER,
    NOW,
    OTHER_RSA_KEY,
    RSA_KEY,
    Issuer,
    claims,
    forged,
    jwk,
    token,
)

SECRET = "s" * 40
EVERYTHING: dict[str, Any] = {
    "COMPANION_OIDC_ISSUER": ISSUER,
    "COMPANION_OIDC_AUDIENCE": AUDIENCE,
    "COMPANION_GUESTS": "on",
    "COMPANION_GUEST_SECRET": SECRET,
    "COMPANION_LOCAL_OWNER": "local",
}


def public_pem() -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return RSA_KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def hmac_with_public_key() -> str:
    import hashlib
    import hmac

    head, body = forged({"alg": "HS256", "kid": "k1"}, claims()).rsplit(".", 1)[0].split(".")
    signature = hmac.digest(public_pem(), f"{head}.{body}".encode(), hashlib.sha256)
    return f"{head}.{body}.{base64.urlsafe_b64encode(signature).decode().rstrip('=')}"


def tampered(**changes: Any) -> str:
    head, _, signature = token().split(".")
    body = base64.urlsafe_b64encode(json.dumps(claims(**changes)).encode()).decode().rstrip("=")
    return f"{head}.{body}.{signature}"


def guest(**changes: Any) -> str:
    fields: dict[str, Any] = {"secret": SECRET, "token": "a" * 32, "now": NOW, **changes}
    return guests.issue(Secret(fields["secret"]), fields["token"], now=fields["now"])[0]


WRONG_CLAIMS: dict[str, dict[str, Any]] = {
    "issuer of another": {"iss": "https://evil.example"},
    "issuer with a slash more": {"iss": f"{ISSUER}/"},
    "issuer in capitals": {"iss": ISSUER.upper()},
    "no issuer": {"iss": None},
    "issuer list": {"iss": [ISSUER]},
    "audience of another": {"aud": "api://other"},
    "no audience": {"aud": None},
    "audience among others": {"aud": [AUDIENCE, "api://other"]},
    "audience prefix": {"aud": AUDIENCE[:-1]},
    "audience longer": {"aud": f"{AUDIENCE}/x"},
    "audience empty": {"aud": ""},
    "audience empty list": {"aud": []},
    "expired": {"exp": NOW - 3600},
    "expired beyond the leeway": {"exp": NOW - 61},
    "no expiry": {"exp": None},
    "expiry a string": {"exp": str(NOW + 600)},
    "expiry true": {"exp": True},
    "expiry in a century": {"exp": NOW + 100 * 366 * 86_400},
    "not yet": {"nbf": NOW + 3600},
    "not yet as a string": {"nbf": "soon"},
    "from the future": {"iat": NOW + 3600},
    "no subject": {"sub": None},
    "subject empty": {"sub": ""},
    "subject a number": {"sub": 7},
    "subject a list": {"sub": ["ada"]},
}
WRONG_HEADERS: dict[str, dict[str, Any]] = {
    "jku": {"jku": "https://evil.example/keys"},
    "x5u": {"x5u": "https://evil.example/cert"},
    "jwk": {"jwk": jwk(OTHER_RSA_KEY, "k1")},
    "x5c": {"x5c": ["MIIB"]},
    "crit": {"crit": ["exp"]},
}


def bad_tokens() -> Iterator[tuple[str, str]]:
    """What is wrong with it, and the token."""
    for name, value in WRONG_CLAIMS.items():
        try:
            yield name, token(claims(**value))
        except TypeError:  # the library refuses to make it; by hand then
            yield name, forged({"alg": "RS256", "kid": "k1"}, claims(**value))
    for name, header in WRONG_HEADERS.items():
        yield f"header {name}", token(**header)
        yield f"header {name}, its own key", token(key=OTHER_RSA_KEY, **header)
    yield "no key id", token(kid=None)
    yield "key id of another key", token(kid="k2")
    yield "unknown key id", token(kid="k9")
    yield "key id empty", token(kid="")
    yield "key id a path", token(kid="../../../dev/null")
    yield "key id a statement", token(kid="k1' OR '1'='1")
    yield "key id very long", token(kid="k" * 300)
    yield "signed by another key", token(key=OTHER_RSA_KEY)
    yield "key of another kind", token(key=EC_KEY, alg="ES256", kid="k1")
    yield "RS384", token(alg="RS384")
    yield "RS512", token(alg="RS512")
    yield "PS256", token(alg="PS256")
    yield "HS256 with the public key", hmac_with_public_key()
    for alg in ("none", "None", "NONE", "nOnE", "HS256", "HS384", "HS512", "EdDSA", "", None, 256, ["RS256"]):
        yield f"algorithm {alg!r}", forged({"alg": alg, "kid": "k1"}, claims())
    yield "algorithm none, no signature", forged({"alg": "none", "kid": "k1"}, claims(), b"")
    yield "no algorithm", forged({"kid": "k1"}, claims())
    yield "right form, no right signature", forged({"alg": "RS256", "kid": "k1"}, claims())
    yield "signature cut", token()[:-20]
    yield "signature gone", token().rsplit(".", 1)[0] + "."
    yield "signature of another token", token().rsplit(".", 1)[0] + "." + token(claims(sub="x")).rsplit(".", 1)[1]
    yield "subject changed", tampered(sub="root")
    yield "expiry changed", tampered(exp=NOW + 99_999)
    yield "header not JSON", "bm90IGpzb24." + token().split(".", 1)[1]
    yield "header a list", "W10." + token().split(".", 1)[1]
    yield "header not base64", "%%%." + token().split(".", 1)[1]
    yield "payload not JSON", ".".join([token().split(".")[0], "bm90", token().split(".")[2]])
    yield "two parts", token().rsplit(".", 1)[0]
    yield "four parts", token() + ".x"
    yield "five parts", token() + ".x.y"
    yield "empty parts", ".."
    yield "too long", token(claims(x="y" * 20_000))
    # keys
    yield "static key cut", ANN[:-1]
    yield "static key longer", f"{ANN}x"
    yield "static key in capitals", ANN.upper()
    yield "static key's owner", "ann"
    yield "static key with its owner", f"{ANN}=ann"
    yield "prefix alone", "ck_"
    yield "unknown key", f"ck_{'0' * 16}_{'x' * 43}"
    yield "prefix of a path", "ck_../../state_secret"
    yield "key of signs", "ck_#/?\\_x"
    yield "key without secret", f"ck_{'0' * 16}_"
    yield "key very long", f"ck_{'0' * 16}_{'x' * 5000}"
    # guests
    yield "guest of another secret", guest(secret="t" * 40)
    yield "guest expired", guest(now=NOW - guests.LIFETIME - 1)
    yield "guest changed", guest()[:6] + "A" + guest()[7:]
    yield "guest without signature", guest().split(".")[0]
    yield "guest with another's signature", guest().split(".")[0] + "." + guest(token="b" * 32).split(".")[1]
    yield "guest padded", guest() + "="
    yield "guest of nothing", "cg_"
    yield "guest of dots", "cg_.."
    # other ways to say it
    yield "empty", ""
    yield "null", "null"
    yield "a star", "*"


BAD = list(bad_tokens())


def test_there_are_at_least_eighty_of_them() -> None:
    assert len({value for _, value in BAD}) >= 80
    assert len({name for name, _ in BAD}) == len(BAD)


async def test_no_bad_credential_is_accepted(tmp_path: Path) -> None:
    clock = ManualClock(NOW)
    accepted: list[str] = []
    async with service(tmp_path, clock=clock, **EVERYTHING) as here:
        object.__setattr__(here.app, "oidc", Oidc(here.app.settings.caller, clock, Issuer().fetch))
        async with here.client(None) as client:
            for name, value in BAD:
                answer = await client.get("/v1/conversations", headers={"authorization": f"Bearer {value}"})
                if answer.status_code != 401 or answer.json()["error"]["code"] != "invalid_api_key":
                    accepted.append(f"{name}: {answer.status_code} {answer.text}")
            right = [token(), token(key=EC_KEY, alg="ES256", kid="k2"), ANN, guest()]
            let_in = [
                (await client.get("/v1/conversations", headers={"authorization": f"Bearer {value}"})).status_code
                for value in right
            ]

    assert accepted == []
    assert let_in == [200, 200, 200, 200]


@pytest.mark.parametrize(
    "value",
    ["", "Bearer", "Bearer ", "Basic YW5uOmFubg==", f"Token {ANN}", ANN, f"Bearer\t{ANN}x", f"Bearer {ANN} {ANN}"],
)
async def test_a_header_of_another_form_is_refused(tmp_path: Path, value: str) -> None:
    async with service(tmp_path) as here, here.client(None) as client:
        answer = await client.get("/v1/conversations", headers={"authorization": value})

    assert answer.status_code == 401


def principal_header(tenant: str = "t", person: str = "o", provider: str = "aad") -> str:
    typ = "http://schemas.microsoft.com/identity/claims/"
    claims = [{"typ": f"{typ}tenantid", "val": tenant}, {"typ": f"{typ}objectidentifier", "val": person}]
    return base64.b64encode(json.dumps({"auth_typ": provider, "claims": claims}).encode()).decode()


SPOOFED = (
    {"x-ms-client-principal": principal_header()},
    {"x-ms-client-principal-id": "ann", "x-ms-client-principal-idp": "aad"},
    {"x-ms-client-principal-name": "ann"},
    {"x-ms-token-aad-id-token": "x.y.z", "x-ms-client-principal": principal_header()},
    {"X-MS-CLIENT-PRINCIPAL": principal_header()},
    {"x-forwarded-for": "127.0.0.1", "x-forwarded-host": "127.0.0.1"},
    {"x-user-id": "ann", "x-owner": "ann", "openai-organization": "ann"},
    {"x-functions-key": "local-master-key"},
    {"cookie": f"AppServiceAuthSession={ANN}"},
)


@pytest.mark.parametrize("headers", SPOOFED)
async def test_spoofed_headers_let_nobody_in(tmp_path: Path, headers: dict[str, str]) -> None:
    async with service(tmp_path) as here, here.client(None) as client:
        answer = await client.get("/v1/conversations", headers=headers)

    assert answer.status_code == 401


@pytest.mark.parametrize("headers", SPOOFED)
async def test_spoofed_headers_beside_a_key_change_nothing(tmp_path: Path, headers: dict[str, str]) -> None:
    async with service(tmp_path) as here, here.client(ANN) as client:
        answer = await client.get("/v1/me", headers=headers)

    assert answer.json()["id"] == "ann"


async def test_platform_headers_count_where_they_are_declared(tmp_path: Path) -> None:
    """Past the local host, which takes them from every request as the platform does."""
    settings: dict[str, Any] = {"COMPANION_API_KEYS": "", "COMPANION_PLATFORM_AUTH": "on"}
    async with service(tmp_path, **settings) as here:
        known = await authenticate(here.app, {"x-ms-client-principal": principal_header()})
        other = await authenticate(here.app, {"x-ms-client-principal": principal_header(person="p")})
        for headers in ({}, {"x-ms-client-principal": "?"}, {"x-ms-client-principal": "W10="}):
            with pytest.raises(Unauthenticated):
                await authenticate(here.app, headers)

    assert known.owner.startswith("u_")
    assert known.owner != other.owner


@pytest.mark.parametrize("headers", SPOOFED)
async def test_undeclared_platform_headers_count_for_nothing(tmp_path: Path, headers: dict[str, str]) -> None:
    async with service(tmp_path) as here:
        with pytest.raises(Unauthenticated):
            await authenticate(here.app, {name.lower(): value for name, value in headers.items()})


async def test_a_stolen_token_of_a_guest_cannot_become_a_key_or_an_account(tmp_path: Path) -> None:
    async with service(tmp_path, clock=ManualClock(NOW), **EVERYTHING) as here, here.client(guest()) as client:
        tried = [
            await client.post("/v1/api_keys", json={"name": "x"}),
            await client.get("/v1/admin/usage"),
            await client.get("/v1/admin/routes"),
            await client.put("/v1/admin/routes", json={}),
            await client.post("/v1/me/adopt", json={"guest_token": guest(token="b" * 32)}),
        ]

    assert [each.status_code for each in tried] == [403, 403, 403, 403, 400]


async def test_a_guest_has_the_rights_over_their_data(tmp_path: Path) -> None:
    async with service(tmp_path, clock=ManualClock(NOW), **EVERYTHING) as here, here.client(guest()) as client:
        asked = [
            await client.post("/v1/me/export"),
            await client.post("/v1/me", json={"retention_days": 1}),
            await client.post("/v1/me/erase", json={"confirm": "erase everything"}),
        ]

    assert [each.status_code for each in asked] == [200, 200, 200]


@pytest.mark.parametrize("header", ["evil.example", "127.0.0.1.evil.example", ""])
async def test_the_local_owner_is_on_loopback_names_only(tmp_path: Path, header: str) -> None:
    settings: dict[str, Any] = {"COMPANION_API_KEYS": "", "COMPANION_LOCAL_OWNER": "local"}
    async with service(tmp_path, **settings) as here, here.client(None) as client:
        answer = await client.get("/v1/me", headers={"host": header})

    assert answer.status_code == 403
