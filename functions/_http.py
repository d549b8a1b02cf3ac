"""The switch between the two HTTP extensions; everything else takes its request and response types from here.

Either module must be imported while the app is indexed, and only one of the two. Both speak Starlette's classes.
"""

from starlette.requests import Request
from starlette.responses import Response

from shared.settings import Settings

if Settings.read().http.extension == "fastapi":
    import functions.fastapi_extension as extension
else:
    import functions.http_extension as extension

__all__ = ["Request", "Response", "extension"]
