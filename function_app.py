"""The function app: registers each blueprint. Nothing else."""

import azure.functions as func

from functions._index import register
from functions.not_found import RoutedApp

BLUEPRINTS = (
    "responses",
    "trace",
    "admin",
    "chat_completions",
    "conversations",
    "models",
    "moderations",
    "projects",
    "shares",
    "feedback",
    "changes",
    "account",
    "api_keys",
    "jobs",
    "health",
    "openapi",
    "page",
    "not_found",
)
"""Modules of `functions/`; a handler's module is imported with its first request (functions/_index.py)."""


def create_function_app() -> func.FunctionApp:
    app = RoutedApp(BLUEPRINTS, http_auth_level=func.AuthLevel.ANONYMOUS)
    register(app, BLUEPRINTS)
    return app


app = create_function_app()
