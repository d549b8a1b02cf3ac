"""The function app: registers each blueprint. Nothing else."""

import azure.functions as func

from functions import (
    chat_completions,
    conversations,
    health,
    jobs,
    models,
    moderations,
    not_found,
    openapi,
    page,
    responses,
    trace,
)

BLUEPRINTS = (
    responses,
    trace,
    chat_completions,
    conversations,
    models,
    moderations,
    jobs,
    health,
    openapi,
    page,
    not_found,
)


def create_function_app() -> func.FunctionApp:
    app = not_found.RoutedApp(http_auth_level=func.AuthLevel.ANONYMOUS)
    for module in BLUEPRINTS:
        app.register_functions(module.blueprint)
    return app


app = create_function_app()
