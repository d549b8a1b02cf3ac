"""Which tokens of an issuer are accepted, and how often it is asked for its keys."""

import asyncio

import pytest

from shared.clock import ManualClock
from shared.errors import IdentityUnavailable, Unauthenticated
from shared.identity.oidc import FRESH_SECONDS, REFRESH_SECONDS, RETRY_SECONDS, STALE_SECONDS, Oidc, owner_of
from shared.settings import Settings
from tests.unit.identity.issuer import AUDIENCE, EC_KEY, ISSUER, NOW, OTHER_RSA_KEY, Issuer, claims, jwk, token

SETTINGS = Settings.read({"COMPANION_OIDC_ISSUER": ISSUER, "COMPANION_OIDC_AUDIENCE": AUDIENCE}).caller


def verifier(issuer: Issuer, clock: ManualClock | None = None) -> Oidc:
    return Oidc(SETTINGS, clock or ManualClock(NOW), issuer.fetch)


async def test_a_right_token_names_its_owner_always_the_same() -> None:
    oidc = verifier(Issuer())

    first = await oidc.identify(token())
    second = await oidc.identify(token(claims(iat=NOW - 50)))
    other = await oidc.identify(token(claims(sub="bob")))

    assert first.owner == second.owner != other.owner
    assert first.owner.startswith("u_")


async def test_an_elliptic_key_is_as_good() -> None:
    assert await verifier(Issuer()).identify(token(key=EC_KEY, alg="ES256", kid="k2"))


async def test_a_role_names_the_plan() -> None:
    principal = await verifier(Issuer()).identify(token(claims(roles=["x", "plan.pro"])))

    assert principal.plan == "pro"


def test_entras_users_are_known_by_tenant_and_object_and_others_are_not() -> None:
    entra = {"iss": "https://login.microsoftonline.com/t/v2.0", "sub": "pairwise", "tid": "t", "oid": "o"}

    assert owner_of(entra) == owner_of({**entra, "sub": "another app's"})
    assert owner_of({**entra, "iss": ISSUER}) != owner_of({**entra, "iss": ISSUER, "sub": "x"})
    assert owner_of({**entra, "iss": "https://evil-login.microsoftonline.com.example/"}) != owner_of(entra)


async def test_the_issuer_is_asked_once_for_many_tokens() -> None:
    issuer = Issuer()
    oidc = verifier(issuer)

    await asyncio.gather(*(oidc.identify(token(claims(sub=f"u{n}"))) for n in range(20)))

    assert len(issuer.asked) == 2  # discovery, keys


async def test_unknown_keys_do_not_make_it_ask_more_than_once_a_minute() -> None:
    issuer, clock = Issuer(), ManualClock(NOW)
    oidc = verifier(issuer, clock)
    await oidc.identify(token())

    for _ in range(50):
        with pytest.raises(Unauthenticated):
            await oidc.identify(token(key=OTHER_RSA_KEY, kid="unknown"))

    assert len(issuer.asked) == 2
    clock.advance(REFRESH_SECONDS + 1)
    issuer.keys.append(jwk(OTHER_RSA_KEY, "rolled"))
    assert await oidc.identify(token(key=OTHER_RSA_KEY, kid="rolled"))
    assert len(issuer.asked) == 4


async def test_an_old_list_serves_while_a_new_one_is_asked_for_and_the_issuer_is_down() -> None:
    issuer, clock = Issuer(), ManualClock(NOW)
    oidc = verifier(issuer, clock)
    await oidc.identify(token())
    issuer.is_down = True
    clock.advance(FRESH_SECONDS + 1)

    assert await oidc.identify(token(claims(exp=NOW + 90_000, sub="later")))
    clock.advance(STALE_SECONDS)
    with pytest.raises(IdentityUnavailable):
        await oidc.identify(token(claims(exp=NOW + 200_000, sub="much later")))


async def test_an_issuer_that_was_down_for_a_moment_is_asked_again_soon_but_not_for_every_token() -> None:
    issuer, clock = Issuer(is_down=True), ManualClock(NOW)
    oidc = verifier(issuer, clock)
    for _ in range(20):
        with pytest.raises(IdentityUnavailable):
            await oidc.identify(token())
    asked = len(issuer.asked)
    issuer.is_down = False
    clock.advance(RETRY_SECONDS + 1)

    assert asked == 1
    assert await oidc.identify(token())


async def test_a_token_that_was_checked_ends_when_it_ends() -> None:
    clock = ManualClock(NOW)
    oidc = verifier(Issuer(), clock)
    right = token(claims(exp=NOW + 100))
    await oidc.identify(right)
    clock.advance(200)

    with pytest.raises(Unauthenticated, match="expired"):
        await oidc.identify(right)


async def test_a_discovery_document_of_another_issuer_is_not_believed() -> None:
    issuer = Issuer(discovery={"issuer": "https://evil.example", "jwks_uri": "https://evil.example/keys"})

    with pytest.raises(IdentityUnavailable):
        await verifier(issuer).identify(token())
    assert not any("evil" in url for url in issuer.asked)
