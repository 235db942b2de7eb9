"""Peer of coreset.py and nearest.py: anomalib's KCenterGreedy and PatchCore distances, asked over JSON lines.

{"load": folder} reads every .npy of the folder by its name; {"select": ratio, "steps": S or null} runs
KCenterGreedy on `embedding`, only S steps of it when given, and answers {"seconds", "projection_seconds",
"steps", "of", "dimensions"}; {"nearest": [queries, bank, first, last]} answers {"seconds", "largest"} of
PatchCore's distances with the minimum over the bank. """

import importlib.metadata
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from anomalib.models.components.sampling import KCenterGreedy
from anomalib.models.image.patchcore.torch_model import PatchcoreModel

ARRAYS = {}


def load(folder):
    for path in Path(folder).glob("*.npy"):
        ARRAYS[path.stem] = torch.from_numpy(np.load(path))
    versions = {name: importlib.metadata.version(name) for name in ("anomalib", "torch")}
    return {"versions": versions, "threads": torch.get_num_threads()}


def select(ratio, steps):
    start = time.perf_counter()
    sampler = KCenterGreedy(embedding=ARRAYS["embedding"], sampling_ratio=ratio)
    sampler.model.fit(sampler.embedding)
    sampler.model.transform(sampler.embedding)
    projection = time.perf_counter() - start
    sampler = KCenterGreedy(embedding=ARRAYS["embedding"], sampling_ratio=ratio)
    full = sampler.coreset_size
    if steps:
        sampler.coreset_size = steps
    start = time.perf_counter()
    picks = sampler.select_coreset_idxs()
    seconds = time.perf_counter() - start
    dimensions = sampler.features.shape[1]
    return {"seconds": seconds, "projection_seconds": projection, "steps": len(picks), "of": full, "dimensions": dimensions}


def nearest(queries, bank, first, last):
    rows, others = ARRAYS[queries][first:last], ARRAYS[bank]
    with torch.inference_mode():
        start = time.perf_counter()
        distances, _ = PatchcoreModel.euclidean_dist(rows, others).min(1)
        seconds = time.perf_counter() - start
    return {"seconds": seconds, "largest": float(distances.max())}


for line in sys.stdin:
    request = json.loads(line)
    if "load" in request:
        answer = load(request["load"])
    elif "select" in request:
        answer = select(request["select"], request["steps"])
    else:
        answer = nearest(*request["nearest"])
    print(json.dumps(answer), flush=True)
