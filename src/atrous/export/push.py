"""A bundle to a repository of the hub, by huggingface_hub (extra: hub)."""

from collections.abc import Mapping
from pathlib import Path

from atrous.errors import InputError
from atrous.text import one_line
from atrous.weights.repository import Repository, endpoint, token

__all__ = ["check_push", "push"]


def check_push(address: str) -> Repository:
    """Return the repository that can be pushed to, before any work.

    Raises:
        ImportError: huggingface_hub is not installed.
    """
    import huggingface_hub  # noqa: F401

    repository = Repository.parse(address)
    if "@" in address:
        raise InputError(f"--push {address}: goes to the branch main; leave out the revision")
    return repository


def push(repository: Repository, files: Mapping[str, Path | bytes]) -> str:
    """Write `files`, by their names in the repository, in one commit; return its address.

    A repository that is not there is made.
    """
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]

    api = HfApi(endpoint=endpoint(), token=token() or None, library_name="atrous")
    try:
        api.create_repo(repository.id, exist_ok=True)
        commit = api.create_commit(
            repository.id,
            [CommitOperationAdd(name, content) for name, content in files.items()],
            commit_message="Bundle of atrous, with its model card",
        )
    except (HTTPError, OSError, ValueError) as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status in (401, 403):
            reason = f"the hub answers {status}: HF_TOKEN may not write there"
        else:
            reason = one_line(error)[:200]
        raise InputError(f"{repository}: not pushed ({reason}); the bundle is kept") from None
    return str(commit.commit_url)
