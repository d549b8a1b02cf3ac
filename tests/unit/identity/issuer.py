"""An issuer of tokens for tests: its keys, its list of them, tokens right and wrong."""

import base64
import json
from dataclasses import dataclass, field
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

type Json = dict[str, Any]

ISSUER, AUDIENCE = "https://login.example/tenant/v2.0", "api://companion"
NOW = 1_800_000_000.0

RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER_RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())


def jwk(key: Any, kid: str, **fields: Any) -> Json:
    algorithm: Any = RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else ECAlgorithm
    return {**json.loads(algorithm.to_jwk(key.public_key())), "kid": kid, "use": "sig", **fields}


def claims(**changes: Any) -> Json:
    """Right ones, with changes; None takes a claim away."""
    found = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ada", "exp": NOW + 600, "iat": NOW - 5, "nbf": NOW - 5, **changes}
    return {name: value for name, value in found.items() if value is not None}


def token(
    body: Json | None = None, *, key: Any = RSA_KEY, alg: str = "RS256", kid: str | None = "k1", **header: Any
) -> str:
    headers = {**({"kid": kid} if kid is not None else {}), **header}
    return jwt.encode(body if body is not None else claims(), key, algorithm=alg, headers=headers)


def forged(header: Json, body: Json, signature: bytes = b"x" * 32) -> str:
    """A token made by hand."""
    parts = [json.dumps(header).encode(), json.dumps(body).encode(), signature]
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)


@dataclass
class Issuer:
    """Answers for its URLs, and counts."""

    keys: list[Json] = field(default_factory=lambda: [jwk(RSA_KEY, "k1"), jwk(EC_KEY, "k2")])
    asked: list[str] = field(default_factory=list[str])
    is_down: bool = False
    discovery: Json = field(default_factory=lambda: {"issuer": ISSUER, "jwks_uri": "https://login.example/keys"})

    async def fetch(self, url: str) -> bytes:
        from shared.errors import IdentityUnavailable

        self.asked.append(url)
        if self.is_down:
            raise IdentityUnavailable("down")
        body = self.discovery if url.endswith("openid-configuration") else {"keys": self.keys}
        return json.dumps(body).encode()
