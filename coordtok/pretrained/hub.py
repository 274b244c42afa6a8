"""Exports on the Hugging Face Hub, through huggingface_hub (extra `hf`): its login, its cache and
its environment variables hold, `HF_ENDPOINT` and `HF_HUB_OFFLINE` too."""

import re
from pathlib import Path
from typing import Any

from coordtok.errors import CheckpointError, ConfigError, one_line
from coordtok.pretrained.card import CONFIG, WEIGHTS, read_card
from coordtok.pretrained.read import open_weights

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+", re.ASCII)
_INSTALL = "pip install 'coordtok[hf]'"


def local_export(export: str | Path, revision: str | None = None) -> Path:
    """The folder of an export: `export` itself, or where this machine keeps the Hub's model of that
    id, which is downloaded if it is not there yet.

    OWNER/NAME is an id where neither it nor a folder OWNER is here, so that the Hub is not asked
    for a misspelt folder. revision: a branch, a tag or a commit of the Hub's model.

    Raises:
        ConfigError: a revision of a folder.
        CheckpointError: the Hub has no such model or cannot be asked.
    """
    if not _is_hub_id(str(export)):
        if revision is not None:
            raise ConfigError(f"revision is {revision}, but {export} is no model of the Hub")
        return Path(export)
    hub = _hub(f"{export}: no such folder; a model of the Hub needs {_INSTALL}")
    try:
        # Its libraries raise what they like.
        found = hub.snapshot_download(
            str(export), revision=revision, allow_patterns=[CONFIG, WEIGHTS]
        )
    except Exception as error:
        raise CheckpointError(
            f"{export}: no such folder, and the Hub gives no such model ({one_line(error)[:300]}); "
            "check the name, or your access to it"
        ) from None
    return Path(found)


def push_to_hub(
    folder: str | Path,
    repo_id: str,
    *,
    private: bool = False,
    revision: str | None = None,
    commit_message: str = "Upload an export of coordtok",
) -> str:
    """Upload the export at `folder` to the Hub's model `repo_id` (OWNER/NAME), which is made if it
    does not exist; returns the commit's URL. `from_pretrained(repo_id)` loads it then.

    config.json goes along as it is: it names the run's folders and data. private: of a model that
    is made. revision: an existing branch, by default the main one.

    Raises:
        CheckpointError: no export, or a damaged one, or the Hub does not take it.
    """
    read_card(Path(folder))
    with open_weights(Path(folder)):  # reads its header
        pass
    hub = _hub(f"huggingface_hub is not installed; exports are uploaded by it: {_INSTALL}")
    try:
        api = hub.HfApi()
        api.create_repo(repo_id, private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            allow_patterns=[CONFIG, WEIGHTS],
            revision=revision,
            commit_message=commit_message,
        )
    except Exception as error:
        raise CheckpointError(
            f"{folder} is not uploaded to {repo_id} ({one_line(error)[:300]}); log in by "
            "`hf auth login`, or check the name"
        ) from None
    return str(commit.commit_url)


def _is_hub_id(text: str) -> bool:
    path = Path(text)
    return bool(_HUB_ID.fullmatch(text)) and not path.exists() and not path.parent.exists()


def _hub(missing: str) -> Any:
    try:
        import huggingface_hub
    except ImportError:
        raise CheckpointError(missing) from None
    return huggingface_hub
