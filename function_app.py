"""The function app: registers each blueprint. Nothing else."""

import azure.functions as func

from functions import (
    account,
    admin,
    api_keys,
    changes,
    chat_completions,
    conversations,
    feedback,
    health,
    jobs,
    models,
    moderations,
    not_found,
    openapi,
    page,
    projects,
    responses,
    shares,
    trace,
)

BLUEPRINTS = (
    responses,
    trace,
    admin,
    chat_completions,
    conversations,
    models,
    moderations,
    projects,
    shares,
    feedback,
    changes,
    account,
    api_keys,
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
