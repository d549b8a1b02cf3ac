"""App Service authentication: the platform in front checks the user and says in headers who it is.

Believed only where COMPANION_PLATFORM_AUTH declares it; otherwise these headers are a caller's own words.
"""

import base64
import binascii
from collections.abc import Mapping
from typing import Any, cast

import orjson

from shared.errors import Unauthenticated
from shared.identity.oidc import entra_owner
from shared.ids import derived_token
from shared.principal import SCOPES, Principal

HEADER = "x-ms-client-principal"

_TENANT = ("tid", "http://schemas.microsoft.com/identity/claims/tenantid")
_PERSON = ("oid", "http://schemas.microsoft.com/identity/claims/objectidentifier")


def principal_of_headers(headers: Mapping[str, str]) -> Principal | None:
    """The user the platform names; None where it names nobody.

    Raises:
        Unauthenticated: the header cannot be read.
    """
    header = headers.get(HEADER)
    if not header:
        return None
    try:
        body: object = orjson.loads(base64.b64decode(header, validate=True))
    except (ValueError, binascii.Error):
        raise Unauthenticated("The platform's principal cannot be read.") from None
    if not isinstance(body, dict):
        raise Unauthenticated("The platform's principal cannot be read.")
    claims = _claims(cast(dict[str, Any], body))
    tenant, person = _first(claims, _TENANT), _first(claims, _PERSON)
    provider = str(cast(dict[str, Any], body).get("auth_typ") or "")
    if provider == "aad" and tenant and person:
        owner = entra_owner(tenant, person)
    else:
        subject = headers.get("x-ms-client-principal-id", "")
        if not provider or not subject:
            raise Unauthenticated("The platform's principal names nobody.")
        owner = f"u_{derived_token('platform', provider, subject)}"
    return Principal(owner=owner, scopes=frozenset(SCOPES))


def _claims(body: dict[str, Any]) -> dict[str, str]:
    claims: Any = body.get("claims")
    listed = cast(list[Any], claims) if isinstance(claims, list) else []
    found = [cast(dict[str, Any], each) for each in listed if isinstance(each, dict)]
    return {str(each.get("typ")): str(each.get("val")) for each in found}


def _first(claims: dict[str, str], names: tuple[str, ...]) -> str | None:
    return next((claims[name] for name in names if claims.get(name)), None)
