"""S3 through s3fs: signed links, and listing of folders.

Credentials, region and endpoint come from AWS's standard settings: ``AWS_ACCESS_KEY_ID``,
``AWS_SECRET_ACCESS_KEY``, ``AWS_SESSION_TOKEN``, ``AWS_PROFILE``, ``AWS_REGION``,
``AWS_ENDPOINT_URL``, the files in ``~/.aws``, or the machine's role. Without credentials, requests
are anonymous, which works for public buckets. Data is fetched by signed links, so S3 and the web
share one transfer code.
"""

from __future__ import annotations

import os
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from mimsuite.data.stores import retry
from mimsuite.data.stores.retry import Denied, NotThere, Transient, retried
from mimsuite.errors import MimsuiteError, UserError

if TYPE_CHECKING:
    from mimsuite.data.stores.url import Url

_LINK_SECONDS = 3600  # lifetime of a signed link; each request gets a new one


class Listed(NamedTuple):
    """An entry of a folder; ``size`` and ``tag`` are None for a subfolder."""

    name: str
    size: int | None
    tag: str | None


def signed(url: Url) -> str:
    """A signed link to the object, valid for an hour.

    Raises:
        UserError: the AWS settings are invalid, or s3fs is not installed.
    """
    try:
        return str(_system(*_asked()).sign(url.bucket_path, expiration=_LINK_SECONDS))
    except Exception as fault:
        if (passing := _translated(url, fault)) is None:
            raise
        raise passing from None


def entries(url: Url) -> list[Listed]:
    """Objects and subfolders directly in a folder; empty if the folder does not exist.

    Raises:
        Denied: the server refuses access.
        DataError: no response after all tries.
    """

    def ask() -> list[dict[str, Any]]:
        try:
            return list(_system(*_asked()).ls(url.bucket_path, detail=True, refresh=True))
        except FileNotFoundError:
            return []
        except Exception as fault:
            if (passing := _translated(url, fault)) is None:
                raise
            raise passing from None

    found = []
    for item in retried(url, ask):
        name = item["name"].rstrip("/").rpartition("/")[2]
        if item["type"] == "directory":
            found.append(Listed(name, None, None))
        else:
            tag = item.get("ETag")
            found.append(Listed(name, item["size"], tag and f'"{tag.strip(chr(34))}"'))
    return found


def _asked() -> tuple[int, tuple[tuple[str, str], ...]]:
    """The process, since connections do not survive a fork, and the settings in its environment."""
    aws = sorted(item for item in os.environ.items() if item[0].startswith("AWS_"))
    return os.getpid(), tuple(aws)


@cache
def _system(process: int, environment: tuple[tuple[str, str], ...]) -> Any:
    """The s3fs file system of this process, which s3fs configures from this environment."""
    try:
        import botocore.session
        import s3fs
    except ImportError:
        raise UserError("s3: needs s3fs: pip install 'mimsuite[cloud]'") from None
    seconds = {"connect_timeout": retry.CONNECT_SECONDS, "read_timeout": retry.STALL_SECONDS}
    settings = {**seconds, "retries": {"max_attempts": 0}}
    anonymous = botocore.session.get_session().get_credentials() is None
    if not anonymous:
        settings["signature_version"] = "s3v4"  # most servers refuse the older version
    system = s3fs.S3FileSystem(
        anon=anonymous, config_kwargs=settings, skip_instance_cache=True, use_listings_cache=False
    )
    system.retries = 1  # `Patience` counts the tries
    return system


def _translated(url: Url, fault: Exception) -> Exception | None:
    """Our exception for an s3fs error; None: neither the network nor the settings caused it."""
    if isinstance(fault, MimsuiteError):
        return None
    from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError

    client = fault if isinstance(fault, ClientError) else fault.__cause__
    if isinstance(client, ClientError):
        code = str(client.response.get("Error", {}).get("Code", ""))
        status = client.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 500)
        if status in (401, 403):
            return Denied(
                f"{url}: access denied ({status} {code}): check AWS_ACCESS_KEY_ID, "
                f"AWS_SECRET_ACCESS_KEY and its rights"
            )
        if status == 404:
            return NotThere(f"{url} is not there ({status} {code})")
        if status < 500 and status != 429:
            return UserError(f"{url}: the server answers {status} {code}: check AWS_REGION")
        return Transient(f"the server answers {status} {code}")
    if isinstance(fault, PermissionError):
        return Denied(f"{url}: access denied: check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY")
    if isinstance(fault, HTTPClientError | OSError):
        return Transient(str(fault).partition("\n")[0] or type(fault).__name__)
    if isinstance(fault, BotoCoreError | ValueError):
        return UserError(f"{url}: the settings of AWS cannot be used: {fault}")
    return None
