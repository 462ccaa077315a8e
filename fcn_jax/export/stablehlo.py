"""Writes a network as StableHLO, with all that its user needs beside it."""

import json
import pathlib
import shutil
import tempfile
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from fcn_jax import processes, sharding
from fcn_jax.errors import UserError
from fcn_jax.evaluation import trained

PLATFORMS = ("cpu", "cuda", "tpu")
PROGRAM = "model.stablehlo"
FILES = {PROGRAM, "weights.npz", "model.json", "predict.py"}
CONSUMER = pathlib.Path(__file__).with_name("consumer.py")


def trace(run: trained.Trained) -> export.Exported:
    """Exports ``(weights, images) -> logits``.

    ``weights`` are the parameters and statistics by name, see ``flat``; ``images`` are
    uint8 RGB [b, h, w, 3] and the logits float32 [b, h, w, C], for any b, h and w from
    1 on, on all of ``PLATFORMS``. Activations are float32, whatever they were before.
    """
    model = run.model.clone(dtype=jnp.float32)
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), flat(run))

    def network(weights, images):
        return model.apply(flax.traverse_util.unflatten_dict(weights, "/"), images)

    size = export.symbolic_shape("b, h, w")
    images = jax.ShapeDtypeStruct((*size, 3), jnp.uint8)
    return export.export(jax.jit(network), platforms=PLATFORMS)(shapes, images)


def flat(run: trained.Trained) -> dict[str, jax.Array]:
    """The network's variables by name, such as ``params/encoder/conv1_1/kernel``."""
    return flax.traverse_util.flatten_dict(run.variables, sep="/")


def describe(run: trained.Trained, exported: export.Exported) -> dict[str, Any]:
    """What the user of an exported network has to know, as JSON types."""
    config = run.config
    return {
        "format": 1,
        "task": config.task,
        "class_names": list(run.class_names),
        "palette": run.palette.tolist(),
        "thresholds": [t / 100 for t in run.task.thresholds]
        if run.task.multilabel
        else None,
        "input": "uint8 RGB [batch, height, width, 3], 0-255, at image_scale",
        "output": "float32 logits [batch, height, width, classes]",
        "image_scale": config.data.image_scale,
        "intensity_range": list(config.data.intensity_range),
        "mean": list(run.model.mean),  # Inside the network, for information.
        "std": list(run.model.std),
        "platforms": list(exported.platforms),
        "step": run.name,
        "trained_on": list(run.trained_on),
        "jax": jax.__version__,
        "calling_convention": exported.calling_convention_version,
        "code": processes.code_version(),
    }


def write(
    run: trained.Trained, output: str | pathlib.Path, *, overwrite: bool = False
) -> pathlib.Path:
    """Writes the folder of a network, whole or not at all.

    Args:
        run: the network.
        output: the folder: ``model.stablehlo``, ``weights.npz``, ``model.json`` and a
            script that uses them, ``predict.py``.
        overwrite: whether to replace a folder that is such a network.

    Returns:
        The folder.

    Raises:
        UserError: a folder that is not to be replaced, or no flatbuffers.
    """
    output = pathlib.Path(output).expanduser().resolve()
    exists = output.exists()
    if exists and not (overwrite and _is_exported(output)):
        raise UserError(
            f"--output={output} exists; give a new folder, or --overwrite to replace "
            "a folder that holds an exported network and nothing else."
        )
    exported = trace(run)
    try:
        program = exported.serialize()
    except ImportError as error:
        raise UserError(
            "flatbuffers is missing, which JAX writes programs with; install it: "
            "pip install -e '.[export]'."
        ) from error
    output.parent.mkdir(parents=True, exist_ok=True)
    part = pathlib.Path(tempfile.mkdtemp(prefix=".export-", dir=output.parent))
    before = part.with_name(f"{part.name}-before")
    try:
        (part / PROGRAM).write_bytes(program)
        weights = {
            name: np.asarray(sharding.gather(x)) for name, x in flat(run).items()
        }
        np.savez(part / "weights.npz", **weights)
        text = json.dumps(describe(run, exported), indent=1) + "\n"
        (part / "model.json").write_text(text)
        shutil.copyfile(CONSUMER, part / "predict.py")
        part.chmod(0o755)
        if exists:
            output.rename(before)
        part.rename(output)
    finally:
        shutil.rmtree(part, ignore_errors=True)
        if before.exists() and not output.exists():
            before.rename(output)
        shutil.rmtree(before, ignore_errors=True)
    return output


def _is_exported(folder: pathlib.Path) -> bool:
    """Whether a folder holds an exported network and nothing else."""
    return folder.is_dir() and {PROGRAM} <= {p.name for p in folder.iterdir()} <= FILES
