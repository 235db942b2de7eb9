"""Peer of pixel_metrics.py: anomalib's AUROC, AUPR, F1Max and AUPRO, asked over JSON lines.

{"load": folder} reads maps.npy and masks.npy; {"run": name} times one figure and answers {"seconds", "value",
"extra_mib", "version"}. The maps must lie in [0, 1]: AUROC and AUPR put a sigmoid on scores that do not. """

import importlib.metadata
import json
import sys
import time

import numpy as np
import torch
from anomalib.metrics.aupr import _AUPR
from anomalib.metrics.aupro import _AUPRO
from anomalib.metrics.auroc import _AUROC
from anomalib.metrics.f1_score import _F1Max

CLASSES = {"auroc": _AUROC, "ap": _AUPR, "f1_max": _F1Max, "aupro": _AUPRO}


def peak_mib():
    """Largest resident memory since the last reset; not getrusage's, which a child inherits from its parent.
    """
    with open("/proc/self/status") as status:
        return int(next(line for line in status if line.startswith("VmHWM")).split()[1]) / 1024


def reset_peak():
    with open("/proc/self/clear_refs", "w") as refs:
        refs.write("5")


def measure(name, maps, masks):
    reset_peak()
    before, start = peak_mib(), time.perf_counter()
    metric = CLASSES[name]()
    metric.update(maps, masks)
    value = float(metric.compute())
    return {"seconds": time.perf_counter() - start, "value": value, "extra_mib": peak_mib() - before}


maps = masks = None
for line in sys.stdin:
    request = json.loads(line)
    if "load" in request:
        maps = torch.from_numpy(np.load(request["load"] + "/maps.npy"))
        masks = torch.from_numpy(np.load(request["load"] + "/masks.npy")).int()
        answer = {"version": importlib.metadata.version("anomalib"), "torch": torch.__version__}
    else:
        answer = measure(request["run"], maps, masks)
    print(json.dumps(answer), flush=True)
