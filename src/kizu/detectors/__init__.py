"""Detectors: fit on good images, predict map and score; one file each (level 4)."""

# From here to the end: written by tools/exports.py, from the files of this folder.
from __future__ import annotations

from typing import TYPE_CHECKING

from kizu import registry

if TYPE_CHECKING:
    from kizu.detectors import base as base
    from kizu.detectors import decision as decision
    from kizu.detectors import encoder as encoder
    from kizu.detectors import files as files
    from kizu.detectors import learned as learned
    from kizu.detectors import one_pass as one_pass
    from kizu.detectors import reconstruction as reconstruction
    from kizu.detectors import runtime as runtime
    from kizu.detectors import scored as scored
    from kizu.detectors.autoencoder import Autoencoder
    from kizu.detectors.base import Detector
    from kizu.detectors.cflow import CFlow
    from kizu.detectors.classifier import Classifier
    from kizu.detectors.csi import CSI
    from kizu.detectors.cutpaste import CutPaste
    from kizu.detectors.decision import Decision
    from kizu.detectors.deep_svdd import DeepSVDD
    from kizu.detectors.differnet import DifferNet
    from kizu.detectors.encoder import EncoderDetector, EncoderNetwork
    from kizu.detectors.feature_norm import FeatureNorm
    from kizu.detectors.gaussian import Gaussian
    from kizu.detectors.glass import GLASS
    from kizu.detectors.learned import LearnedDetector
    from kizu.detectors.one_pass import OnePassDetector
    from kizu.detectors.padim import PaDiM
    from kizu.detectors.patchcore import PatchCore
    from kizu.detectors.reconstruction import Networks, ReconstructionDetector, ReconstructionScorer
    from kizu.detectors.recontrast import ReContrast
    from kizu.detectors.reverse_distillation import ReverseDistillation
    from kizu.detectors.rotnet import RotNet
    from kizu.detectors.runtime import Runtime
    from kizu.detectors.scored import Scored
    from kizu.detectors.simplenet import SimpleNet
    from kizu.detectors.tdg import TDG
    from kizu.detectors.uniad import UniAD
    from kizu.detectors.vae import VAE

__all__ = [
    "CSI", "GLASS", "TDG", "VAE", "Autoencoder", "CFlow", "Classifier", "CutPaste", "Decision", "DeepSVDD",
    "Detector", "DifferNet", "EncoderDetector", "EncoderNetwork", "FeatureNorm", "Gaussian",
    "LearnedDetector", "Networks", "OnePassDetector", "PaDiM", "PatchCore", "ReContrast",
    "ReconstructionDetector", "ReconstructionScorer", "ReverseDistillation", "RotNet", "Runtime", "Scored",
    "SimpleNet", "UniAD",
]  # fmt: skip

registry.open_room(__name__, {
    "Decision": "decision", "Detector": "base", "EncoderDetector": "encoder", "EncoderNetwork": "encoder",
    "LearnedDetector": "learned", "Networks": "reconstruction", "OnePassDetector": "one_pass",
    "ReconstructionDetector": "reconstruction", "ReconstructionScorer": "reconstruction",
    "Runtime": "runtime", "Scored": "scored",
})  # fmt: skip
