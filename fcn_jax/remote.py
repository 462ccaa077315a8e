"""Object stores (``gs://``): what is one, and its errors in one sentence."""

import contextlib
import errno
import logging
import os
from collections.abc import Iterator

import fsspec
from etils import epath

from fcn_jax.errors import UserError


def is_url(path: os.PathLike | str) -> bool:
    """Whether a path is in an object store."""
    return "://" in str(path)


@contextlib.contextmanager
def explained(url: os.PathLike | str) -> Iterator[None]:
    """Makes a UserError of a store's errors, of which each library has its own.

    Raises:
        UserError: For all but errors of the local disk.
    """
    gcsfs = logging.getLogger("gcsfs")
    disabled, gcsfs.disabled = gcsfs.disabled, True  # It would print stack traces.
    try:
        yield
    except Exception as error:
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise UserError(_explain(url, error)) from error
    finally:
        gcsfs.disabled = disabled


def _explain(url: os.PathLike | str, error: Exception) -> str:
    if isinstance(error, ImportError):
        reason = str(error)  # Tells what is to be installed.
        remedy = "for gs:// that is: python -m pip install 'fcn_jax[gcs]'"
    elif isinstance(error, FileNotFoundError):
        reason = "there is no such bucket, or none that you may see"
        remedy = "check its name and your access"
    else:
        reason = " ".join(str(error).split()) or type(error).__name__
        remedy = "authenticate (gcloud auth application-default login) as who may"
    return f"{url} cannot be read or written ({reason}); {remedy}."


def require_usable(path: os.PathLike | str, *, write: bool) -> None:
    """Raises UserError if a path is a URL that cannot be read, or written."""
    if not is_url(path):
        return
    with explained(path):
        files, inside = fsspec.core.url_to_fs(str(path), use_listings_cache=False)
        files.exists(inside)
        if write:
            files.pipe_file(f"{inside}/.probe", b"")
            with contextlib.suppress(FileNotFoundError):  # Another process did.
                files.rm_file(f"{inside}/.probe")


def absolute(path: os.PathLike | str) -> epath.Path:
    """An absolute path; epath would put the working folder before a URL."""
    path = epath.Path(path)
    return path if is_url(path) else path.resolve()
