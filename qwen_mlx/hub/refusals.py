"""What a hub's "no" means. It says 401 both for a repository that is missing and for one that needs a token."""

from __future__ import annotations

from qwen_mlx.errors import NetworkError, NotFound, QwenError
from qwen_mlx.hub.endpoint import Endpoint
from qwen_mlx.hub.references import Reference
from qwen_mlx.hub.transport import Refused, without_query

_LOG_IN = "log in with `hf auth login`, or set HF_TOKEN."


def explain(refused: Refused, endpoint: Endpoint, reference: Reference, file: str | None = None) -> QwenError:
    """The error for a person.

    Args:
        file: the file that was asked for, None for the listing of the repository.
    """
    repository, status, token = reference.repository, refused.status, endpoint.token is not None
    if refused.code == "GatedRepo":
        page = f"{endpoint.url}/{repository}"
        if token:
            return NetworkError(
                f"{repository} is gated, and the account of your token has no access yet",
                hint=f"Accept the licence at {page}, then pull again.",
            )
        return NetworkError(
            f"{repository} is gated: its makers ask who downloads it",
            hint=f"Accept the licence at {page}, then {_LOG_IN}",
        )
    if status == 401 and token and (refused.code != "RepoNotFound" or "credentials" in refused.message.lower()):
        return NetworkError(
            f"{endpoint.name} does not accept your token", hint="It may be mistyped or withdrawn: `hf auth login`."
        )
    if refused.code == "RevisionNotFound":
        return NotFound(f"{repository} has no revision {reference.revision!r} at {endpoint.name}")
    if refused.code == "RepoNotFound" or status == 401:
        hint = "Check the spelling." if token else f"Check the spelling; if it is private: {_LOG_IN}"
        return NotFound(f"there is no repository {repository} at {endpoint.name}, or you may not see it", hint=hint)
    if status == 403:
        return NetworkError(
            f"{endpoint.name} does not let you have {repository}",
            found=refused.message or "status 403",
            hint="Your token may lack the permission to read it." if token else f"L{_LOG_IN[1:]}",
        )
    if status == 404 and file is not None:
        return NetworkError(f"{endpoint.name} lists {file} of {repository}, but does not have it")
    if status == 404 and (reference.source == "modelscope" or endpoint.variable is None):
        return NotFound(
            f"there is no repository {repository} with a revision {reference.revision!r} at {endpoint.name}"
        )
    if status == 404:
        return NetworkError(
            f"{endpoint.name} answered without the hub's headers (no X-Error-Code, no X-Repo-Commit)",
            found=f"status 404 for {without_query(refused.url)}",
            hint="It may not have the repository, or not be a mirror of the hub: check HF_ENDPOINT.",
        )
    return NetworkError(
        f"{endpoint.name} refuses {without_query(refused.url)}", found=refused.message or f"status {status}"
    )
