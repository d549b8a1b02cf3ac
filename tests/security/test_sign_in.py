"""The stock SDK, signed in: with a token of an issuer, with a key, as a guest; against real processes and sockets."""

import json
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import AuthenticationError, NotFoundError, OpenAI, PermissionDeniedError

from tests.processes import companion
from tests.unit.identity.issuer import AUDIENCE, OTHER_RSA_KEY, RSA_KEY, claims, jwk, token

type Json = dict[str, Any]


@contextmanager
def issuer() -> Generator[str]:
    """Discovery document and keys, as an issuer serves them."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            url = f"http://127.0.0.1:{server.server_port}"
            bodies: dict[str, Json] = {
                "/.well-known/openid-configuration": {"issuer": url, "jwks_uri": f"{url}/keys"},
                "/keys": {"keys": [jwk(RSA_KEY, "k1")]},
            }
            self.send_response(200 if self.path in bodies else 404)
            self.end_headers()
            self.wfile.write(json.dumps(bodies.get(self.path)).encode())

        def log_message(self, format: str, *args: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def signed_in(url: str, iss: str, person: str, **header: Any) -> OpenAI:
    """As an app does it: the token of its user in the place of the key."""
    now = time.time()
    body = claims(iss=iss, sub=f"pairwise-{person}", tid="tenant", oid=person, iat=now, nbf=now - 5, exp=now + 600)
    return OpenAI(base_url=url, api_key=token(body, **header), max_retries=0)


def keys_of(client: OpenAI) -> httpx.Client:
    return httpx.Client(base_url=str(client.base_url), headers={"authorization": f"Bearer {client.api_key}"})


def test_the_sdk_works_with_a_token_a_key_and_a_guest_on_any_host(tmp_path: Path) -> None:
    with issuer() as iss:
        settings = {
            "COMPANION_OIDC_ISSUER": iss,
            "COMPANION_OIDC_AUDIENCE": AUDIENCE,
            "COMPANION_GUESTS": "on",
            "COMPANION_GUEST_SECRET": "g" * 40,
            "COMPANION_OFFLINE_DELAY": "0",
        }
        with companion(tmp_path, **settings) as one, companion(tmp_path, **settings) as two:
            ada, bob = signed_in(one, iss, "ada"), signed_in(one, iss, "bob")
            thread = ada.conversations.create()
            answer = ada.responses.create(model="companion", input="Hello.", conversation=thread.id)
            stream = list(ada.responses.create(model="companion", input="Hello again.", stream=True))
            with pytest.raises(NotFoundError):
                bob.responses.retrieve(answer.id)
            for forged in (
                signed_in(one, iss, "ada", key=OTHER_RSA_KEY),
                signed_in(one, "https://evil.example", "ada"),
            ):
                with pytest.raises(AuthenticationError):
                    forged.responses.retrieve(answer.id)

            with keys_of(ada) as http:
                made = http.post("api_keys", json={"name": "script", "scopes": ["read"]}).json()
            reader = OpenAI(base_url=two, api_key=made["key"], max_retries=0)
            seen = reader.responses.retrieve(answer.id)
            with pytest.raises(PermissionDeniedError):
                reader.responses.create(model="companion", input="Hello.")
            with keys_of(ada) as http:
                http.delete(f"api_keys/{made['id']}")
            with pytest.raises(AuthenticationError):  # at once, on the other host
                reader.responses.retrieve(answer.id)

            visitor = OpenAI(base_url=two, api_key=httpx.post(f"{one}/guests").json()["token"], max_retries=0)
            said = visitor.responses.create(model="companion", input="Hello.")
            with keys_of(ada) as http:
                http.post("me/adopt", json={"guest_token": visitor.api_key}).raise_for_status()
            adopted = ada.responses.retrieve(said.id)
            with pytest.raises(AuthenticationError):
                visitor.responses.retrieve(said.id)

    assert stream[-1].type == "response.completed"
    assert seen.output_text == answer.output_text
    assert adopted.output_text == said.output_text


def test_a_key_that_expires_ends_by_itself(tmp_path: Path) -> None:
    with companion(tmp_path, COMPANION_API_KEYS="sk-ann-0123456789=ann", COMPANION_OFFLINE_DELAY="0") as url:
        ann = OpenAI(base_url=url, api_key="sk-ann-0123456789", max_retries=0)
        with keys_of(ann) as http:
            body = {"name": "short", "expires_at": int(time.time()) + 2}
            made = http.post("api_keys", json=body).json()
        short = OpenAI(base_url=url, api_key=made["key"], max_retries=0)
        models = short.models.list().data
        time.sleep(2.1)
        with pytest.raises(AuthenticationError):
            short.models.list()

    assert models
