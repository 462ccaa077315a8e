"""What the processes of a run do in turn, and what they have to agree on.

They talk through the key-value store of JAX's coordination service, which needs no
device: processes that wait for hours, while one downloads, hold up nothing.
"""

import importlib.metadata
import json
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from etils import epath

from fcn_jax import processes, remote
from fcn_jax.errors import UserError

_LIBRARIES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "grain")
_LONG_MS = 7 * 24 * 3600 * 1000  # A process that died is noticed long before.
_SHARED_SECONDS = 5  # Some network file systems show new files with a delay.

T = TypeVar("T")

_num_exchanges = 0


def _new_key() -> str:
    """A key of the store that all processes get alike, as all make the same calls."""
    global _num_exchanges
    _num_exchanges += 1
    return f"fcn_jax/{_num_exchanges}"


def _announce(key: str, sentence: str) -> None:
    """Raises UserError, in all processes, if the main one has a sentence."""
    client = processes.state().client
    if processes.is_main():
        client.key_value_set(f"{key}/verdict", sentence)
    if verdict := client.blocking_key_value_get(f"{key}/verdict", _LONG_MS):
        raise UserError(verdict)


def main_first(work: Callable[[], T]) -> T:
    """Returns ``work()``, done by the main process before the others do it.

    For work that leaves something on a disk: where the disk is shared, the others find
    it done.

    Raises:
        UserError: that of the main process, in all.
    """
    if processes.count() == 1:
        return work()
    key, result, sentence = _new_key(), None, ""
    if processes.is_main():
        try:
            result = work()
        except (UserError, OSError) as error:
            sentence = str(error)
    _announce(key, sentence)
    return result if processes.is_main() else work()


def require_same(facts: Mapping[str, Any], remedy: str) -> None:
    """Raises UserError, in all processes, unless all have the same facts.

    Args:
        facts: values that can be written as JSON, by name.
        remedy: what to do; ends the sentence.
    """
    if processes.count() == 1:
        return
    key, client = _new_key(), processes.state().client
    client.key_value_set(
        f"{key}/{processes.state().process_id}", json.dumps(dict(facts))
    )
    sentence = ""
    if processes.is_main():
        own = json.loads(json.dumps(dict(facts)))
        for i in range(1, processes.count()):
            theirs = json.loads(client.blocking_key_value_get(f"{key}/{i}", _LONG_MS))
            differing = [
                f"{name} ({own.get(name)!r} in process 0, {theirs.get(name)!r} in "
                f"process {i})"
                for name in sorted(own.keys() | theirs.keys())
                if own.get(name) != theirs.get(name)
            ]
            if differing:
                sentence = f"The processes differ in {', '.join(differing)}; {remedy}."
                break
    _announce(key, sentence)


def require_same_code() -> None:
    """Raises UserError unless all processes run the same code on the same libraries."""
    facts = {name: importlib.metadata.version(name) for name in _LIBRARIES}
    require_same(
        facts | {"fcn_jax": processes.code_version()},
        "install the same versions on all machines",
    )


def require_shared(folder: epath.PathLike, field: str) -> None:
    """Raises UserError, in all processes, unless they see the same folder.

    The folder need not exist: what is tried is the nearest one above it that does.

    Args:
        folder: a path; those of object stores (``gs://``) are shared by nature.
        field: what the user calls it.
    """
    if processes.count() == 1 or remote.is_url(folder):
        return
    folder, key, client = (
        epath.Path(folder).resolve(),
        _new_key(),
        processes.state().client,
    )
    lineage = (folder, *folder.parents)
    token, sentence = None, ""
    try:
        if processes.is_main():
            levels = next(i for i, p in enumerate(lineage) if p.exists())
            token = lineage[levels] / f".fcn_jax-{uuid.uuid4().hex}"
            try:
                token.touch()
            except OSError as error:
                sentence = (
                    f"{field}: {lineage[levels]} cannot be written "
                    f"({error.strerror}); choose another folder."
                )
            client.key_value_set(f"{key}/token", f"{levels} {token.name}")
        levels, name = client.blocking_key_value_get(f"{key}/token", _LONG_MS).split()
        seen = sentence == "" and _appears(lineage[int(levels)] / name)
        client.key_value_set(f"{key}/{processes.state().process_id}", str(seen))
        if processes.is_main() and not sentence:
            blind = [
                str(i)
                for i in range(processes.count())
                if client.blocking_key_value_get(f"{key}/{i}", _LONG_MS) == "False"
            ]
            if blind:
                sentence = (
                    f"{field}={folder} is not the same folder for all processes: a "
                    f"file that process 0 made is not seen by {', '.join(blind)}; use "
                    "a shared disk or a gs:// path."
                )
        _announce(key, sentence)
    finally:
        if token is not None:
            token.unlink(missing_ok=True)


def _appears(path: epath.Path) -> bool:
    """Whether a file is there, or comes within a while."""
    end = time.monotonic() + (0 if processes.is_main() else _SHARED_SECONDS)
    while not path.exists():
        if time.monotonic() > end:
            return False
        time.sleep(0.2)
    return True
