"""Peer of whole_job.py: anomalib's PatchCore and PaDiM through its Folder datamodule and its Engine, one job
a process.

One JSON line: {"method": "patchcore" | "padim", "tree": folder with train, test_good, defect and mask,
"size": side in pixels, "weights": safetensors of the backbone, "steps": steps of the coreset to run (0: all),
"workers": loader processes, "out": folder}. The answer has seconds of import, build, fit, save and test, the
metrics, the size of the checkpoint and the peak of memory.

The checkpoint that its fit writes by default is written and timed after it ("save"). With "steps" the
coreset's selection is timed for so many steps and `fit_seconds` holds the time that all of them would take;
the bank is then filled up with random patches. The post-processor gets a fixed range, as a validation set
would give it, so that AUROC and AP do not squash scores by a sigmoid. """

import time

begin = time.perf_counter()

import json
import logging
import os
import sys
from pathlib import Path

os.environ["TQDM_DISABLE"] = "1"

import numpy as np
import torch
from anomalib.callbacks import ModelCheckpoint
from anomalib.data import Folder
from anomalib.engine import Engine
from anomalib.metrics import AUPR, AUPRO, AUROC, Evaluator, F1Max
from anomalib.models import Padim, Patchcore
from anomalib.models.components.sampling import KCenterGreedy
from safetensors.torch import load_file

IMPORTS = time.perf_counter() - begin
RANGE = 1000.0
coreset = {}


def clock():
    """Seconds by the wall and of processor time (all threads of this process)."""
    return np.array([time.perf_counter(), time.process_time()])


def peak_mib():
    """Largest resident memory of this process; not getrusage's, which a child inherits from its parent."""
    with open("/proc/self/status") as status:
        return int(next(line for line in status if line.startswith("VmHWM")).split()[1]) / 1024


def evaluator():
    image, pixel = ["pred_score", "gt_label"], ["anomaly_map", "gt_mask"]
    kinds = {"auroc": AUROC, "ap": AUPR, "f1_max": F1Max}
    metrics = [kind(fields=image, prefix=f"image_{name}_") for name, kind in kinds.items()]
    metrics += [kind(fields=pixel, prefix=f"pixel_{name}_") for name, kind in {**kinds, "aupro": AUPRO}.items()]
    return Evaluator(test_metrics=metrics)


def build(method, size, weights):
    kind = {"patchcore": Patchcore, "padim": Padim}[method]
    parts = {"pre_processor": kind.configure_pre_processor((size, size)), "evaluator": evaluator(), "visualizer": False}
    layers = ["layer1", "layer2", "layer3"]
    if method == "patchcore":
        model = Patchcore(backbone="resnet18", layers=layers[1:], pre_trained=False, coreset_sampling_ratio=0.1, **parts)
    else:
        model = Padim(backbone="resnet18", layers=layers, pre_trained=False, **parts)
    model.model.feature_extractor.feature_extractor.load_state_dict(load_file(weights))
    for part in ("image", "pixel"):
        getattr(model.post_processor, f"{part}_min").fill_(0.0)
        getattr(model.post_processor, f"{part}_max").fill_(RANGE)
    return model


def shorten(steps):
    """Let KCenterGreedy select in `steps` steps, and note what all of them would take."""
    whole = KCenterGreedy.select_coreset_idxs

    def timed(self, picks):
        full, self.coreset_size = self.coreset_size, picks
        start = clock()
        chosen = whole(self)
        self.coreset_size = full
        return chosen, clock() - start

    def select(self):
        full = self.coreset_size
        if not steps or steps + 1 >= full:
            chosen, seconds = timed(self, full)
            coreset.update(seconds=seconds[0], steps=full - 1, of=full - 1, extrapolated=False, missing=[0.0, 0.0])
            return chosen
        _, projecting = timed(self, 1)
        chosen, seconds = timed(self, steps + 1)
        each = (seconds - projecting) / steps
        total = projecting + each * (full - 1)
        start = clock()
        taken = set(chosen)
        rest = [row for row in torch.randperm(self.n_observations).tolist() if row not in taken][: full - len(chosen)]
        missing = total - (projecting + seconds + clock() - start)
        coreset.update(seconds=total[0], projection_seconds=projecting[0], step_seconds=each[0], steps=steps, of=full - 1)
        coreset.update(extrapolated=True, missing=missing.tolist())
        return chosen + rest

    KCenterGreedy.select_coreset_idxs = select


def job(method, tree, size, weights, steps, workers, out):
    shorten(steps)
    start = clock()
    model = build(method, size, weights)
    data = Folder(
        name="tiles",
        root=tree,
        normal_dir="train",
        normal_test_dir="test_good",
        abnormal_dir="defect",
        mask_dir="mask",
        num_workers=workers,
        val_split_mode="none",
    )
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False, "limit_val_batches": 0}
    nothing = [ModelCheckpoint(save_top_k=0)]
    engine = Engine(callbacks=nothing, default_root_dir=out, accelerator="cpu", devices=1, **quiet)
    built = clock()
    engine.fit(model, datamodule=data)
    fitted = clock()
    path = Path(out) / "model.ckpt"
    engine.trainer.save_checkpoint(path)
    saved = clock()
    found = engine.test(model, datamodule=data, verbose=False)[0]
    tested = clock()
    fit, test = fitted - built + coreset.get("missing", 0.0), tested - saved
    answer = {
        "import_seconds": IMPORTS,
        "build_seconds": (built - start)[0],
        "fit_seconds": fit[0],
        "fit_cpu_seconds": fit[1],
        "fit_extrapolated": bool(coreset.get("extrapolated")),
        "save_seconds": (saved - fitted)[0],
        "test_seconds": test[0],
        "test_cpu_seconds": test[1],
        "saved_bytes": path.stat().st_size,
        "peak_mib": peak_mib(),
        "images": {"train": len(data.train_data), "test": len(data.test_data)},
        "metrics": {name.rpartition("_")[0]: float(value) for name, value in found.items()},
    }
    if coreset:
        answer |= {"coreset": coreset, "bank": list(model.model.memory_bank.shape), "fit_measured_seconds": (fitted - built)[0]}
    return answer


logging.getLogger("lightning").setLevel(logging.ERROR)
for line in sys.stdin:
    print(json.dumps(job(**json.loads(line))), flush=True)
