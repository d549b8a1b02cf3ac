"""Who this process is to Azure's data services: a managed identity in the cloud, a developer's login elsewhere."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from azure.core.credentials_async import AsyncTokenCredential


def azure_identity(client_id: str) -> "AsyncTokenCredential":
    """The user-assigned identity of that client id; with none, the default chain. Close it after use."""
    from azure.identity.aio import DefaultAzureCredential, ManagedIdentityCredential  # noqa: PLC0415 - 0.2 s to import

    return ManagedIdentityCredential(client_id=client_id) if client_id else DefaultAzureCredential()
