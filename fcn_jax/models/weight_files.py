"""Weight files: named tensors out of HDF5, safetensors, PyTorch and Caffe files."""

import functools
import importlib.util
import pathlib
import pickle
import warnings
from collections.abc import Iterator

import h5py
import numpy as np
import safetensors
from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    message,
    message_factory,
    text_format,
)

from fcn_jax.errors import UserError


def read(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Reads all tensors of a file, by the names and in the layouts that it has.

    Args:
        path: ``.h5`` of Keras, ``.safetensors``, ``.pth`` of PyTorch (only tensors are
            unpickled, never code), or ``.caffemodel``.

    Returns:
        float32 arrays. Those of Keras and Caffe are named by layer: ``fc1/kernel`` and
        ``fc1/bias``, ``fc6.weight`` and ``fc6.bias``.

    Raises:
        UserError: no such file, another type, damage, or more than tensors.
    """
    if not path.is_file():
        raise UserError(f"There is no weight file {path}; correct the path.")
    require_reader(path)
    try:
        tensors = _READERS[path.suffix](path)
        tensors = {name: np.asarray(x, np.float32) for name, x in tensors.items()}
    except UserError:
        raise
    except Exception as error:  # On damaged bytes each library raises what it likes.
        raise UserError(
            f"{path} is damaged, incomplete or no {path.suffix} file "
            f"({type(error).__name__}); copy or download it again."
        ) from error
    if not tensors:
        raise UserError(f"{path} holds no tensor; copy or download it again.")
    return tensors


def require_reader(path: pathlib.Path) -> None:
    """Raises UserError for a type of file that cannot be read here."""
    if path.suffix not in _READERS:
        raise UserError(
            f"{path} is of no known type; give a file that ends in "
            f"{', '.join(_READERS)}."
        )
    if _READERS[path.suffix] is _read_torch and not importlib.util.find_spec("torch"):
        raise UserError(
            f"Reading {path.name} needs PyTorch, which is not installed; run "
            "'pip install torch' (its CPU build is enough), or give the weights as "
            ".safetensors or .h5."
        )


def _read_hdf5(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Keras' layout: a group a layer, its datasets at any depth, of any name."""
    tensors = {}
    with h5py.File(path) as file:
        if "layers" in file:
            raise UserError(
                f"{path} is a .weights.h5 of Keras 3, which does not name the layers; "
                "save the model by model.save('vgg.h5') and give that."
            )
        layers = file.get("model_weights", file)
        for layer, group in layers.items():
            if not isinstance(group, h5py.Group):
                raise ValueError(f"{layer} is no group")
            for data in _datasets(group):
                kind = "bias" if data.ndim == 1 else "kernel"
                tensors[f"{layer}/{kind}"] = data[()]
    return tensors


def _datasets(group: h5py.Group) -> Iterator[h5py.Dataset]:
    for member in group.values():
        if isinstance(member, h5py.Group):
            yield from _datasets(member)
        else:
            yield member


def _read_safetensors(path: pathlib.Path) -> dict[str, np.ndarray]:
    with safetensors.safe_open(path, "np") as file:
        return {name: np.asarray(file.get_tensor(name)) for name in file.keys()}


def _read_torch(path: pathlib.Path) -> dict[str, np.ndarray]:
    import torch  # An optional package: see `require_reader`.

    try:
        with warnings.catch_warnings(action="ignore"):  # Of other pickles' protocols.
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} holds more than tensors, or is damaged: it was refused, since "
            "unpickling it could run code; give a file of a state_dict."
        ) from error
    for key in ("state_dict", "model_state_dict"):
        if isinstance(content, dict) and key in content:
            content = content[key]
    if not isinstance(content, dict) or not all(
        isinstance(name, str) and isinstance(x, torch.Tensor)
        for name, x in content.items()
    ):
        raise UserError(
            f"{path} holds no state_dict, a table of names and tensors; save "
            "model.state_dict() to it."
        )
    return {
        name.removeprefix("module."): x.detach().float().numpy()
        for name, x in content.items()
    }


def _read_caffe(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Weights and biases of ``layer`` or, in files before 2014's end, ``layers``."""
    net = _net_parameter()()
    net.ParseFromString(path.read_bytes())
    tensors = {}
    for layer in net.layer or net.layers:
        for kind, blob in zip(("weight", "bias"), layer.blobs, strict=False):
            shape = tuple(blob.shape.dim)
            if not shape:  # An old blob has always four axes, the first ones may be 1.
                shape = blob.num, blob.channels, blob.height, blob.width
                if kind == "bias":
                    shape = shape[-1:]
                elif shape[:2] == (1, 1):  # No convolution of a VGG, an inner product.
                    shape = shape[-2:]
            data = np.frombuffer(blob.data, "<f4")
            tensors[f"{layer.name}.{kind}"] = data.reshape(shape)
    return tensors


# Caffe's NetParameter, as far as it concerns weights; numbers are those of caffe.proto.
# The numbers of a blob are declared as bytes: on the wire that is the same as packed
# floats, and NumPy reads it without making a Python object of each.
_SCHEMA = """
name: "weights_of_caffe.proto"
message_type {
  name: "Net"
  field { name: "layers" number: 2 label: LABEL_REPEATED type_name: "OldLayer" }
  field { name: "layer" number: 100 label: LABEL_REPEATED type_name: "Layer" }
}
message_type {
  name: "OldLayer"
  field { name: "name" number: 4 label: LABEL_OPTIONAL type: TYPE_STRING }
  field { name: "blobs" number: 6 label: LABEL_REPEATED type_name: "Blob" }
}
message_type {
  name: "Layer"
  field { name: "name" number: 1 label: LABEL_OPTIONAL type: TYPE_STRING }
  field { name: "blobs" number: 7 label: LABEL_REPEATED type_name: "Blob" }
}
message_type {
  name: "Blob"
  field { name: "num" number: 1 label: LABEL_OPTIONAL type: TYPE_INT32 }
  field { name: "channels" number: 2 label: LABEL_OPTIONAL type: TYPE_INT32 }
  field { name: "height" number: 3 label: LABEL_OPTIONAL type: TYPE_INT32 }
  field { name: "width" number: 4 label: LABEL_OPTIONAL type: TYPE_INT32 }
  field { name: "data" number: 5 label: LABEL_OPTIONAL type: TYPE_BYTES }
  field { name: "shape" number: 7 label: LABEL_OPTIONAL type_name: "Shape" }
}
message_type {
  name: "Shape"
  field { name: "dim" number: 1 label: LABEL_REPEATED type: TYPE_INT64 }
}
"""


@functools.cache
def _net_parameter() -> type[message.Message]:
    file = text_format.Parse(_SCHEMA, descriptor_pb2.FileDescriptorProto())
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("Net"))


_READERS = {
    ".h5": _read_hdf5,
    ".safetensors": _read_safetensors,
    ".pth": _read_torch,
    ".pt": _read_torch,
    ".bin": _read_torch,
    ".caffemodel": _read_caffe,
}
