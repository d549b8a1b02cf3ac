"""Who a request comes from: the one place that decides.

a bearer token   ck_…  an API key            cg_…  a guest
                 a JWT, where an issuer is set      else a static key, where there are some
no token         the platform's headers, where declared
nothing set up   the local owner, on the local machine only
"""

from collections.abc import Mapping
from typing import Protocol

from shared.clock import Clock
from shared.errors import Unauthenticated
from shared.identity import guests, keys
from shared.identity.oidc import Oidc
from shared.identity.platform import principal_of_headers
from shared.identity.static import bearer, identify
from shared.principal import Principal
from shared.settings import Settings
from shared.storage.base import Store

MAX_CREDENTIAL = 16_384


class Host(Protocol):
    """The app, as far as callers go."""

    @property
    def settings(self) -> Settings: ...
    @property
    def store(self) -> Store: ...
    @property
    def clock(self) -> Clock: ...
    @property
    def oidc(self) -> Oidc: ...


async def authenticate(app: Host, headers: Mapping[str, str]) -> Principal:
    """The caller behind these headers (names in lower case).

    Raises:
        Unauthenticated: no credential, or one that is not known.
        PermissionDenied: the local owner's browser, but led here by another site.
    """
    settings = app.settings.caller
    token = _token(headers)
    if token.startswith(keys.PREFIX):
        return await keys.principal_of_key(app.store, app.clock, token)
    if token.startswith(guests.PREFIX) and settings.guests:
        return await guests.principal_of_guest(app.store, app.clock, settings.guest_secret, token)
    if settings.oidc_issuer and token.count(".") == 2 and token not in settings.api_keys:
        return await app.oidc.identify(token)
    if settings.platform_auth and not token:
        principal = principal_of_headers(headers)
        if principal is not None:
            return principal
    if settings.api_keys or not (settings.oidc_issuer or settings.platform_auth):
        return identify(settings, headers)
    bearer(headers)  # says what is missing
    raise Unauthenticated("This credential is of no kind that is known here.")


def _token(headers: Mapping[str, str]) -> str:
    """The bearer token; "" where there is none."""
    value = headers.get("authorization", "")
    if len(value) > MAX_CREDENTIAL + 16:
        raise Unauthenticated("The credential is too long.")
    scheme, _, token = value.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""
