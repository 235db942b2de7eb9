"""Peer of forward.py: onnxruntime's and OpenVINO's forward pass of a network of timm, asked over JSON lines.

{"load": {"network", "out_indices", "weights": safetensors, "size", "batch", "threads"}} exports the network by
torch.onnx, the features of the levels its only outputs, and answers {"engines", "missing", "versions",
"differences"}: what can be asked, why the others cannot, and how far each engine's features are from torch's
float32 ones, relative to their norm. {"forward": engine, "passes": P} answers {"seconds"} of one pass, the
mean of P. "OpenVINO" computes in the precision that it chooses (bf16 where the processor has it). """

import importlib.metadata
import json
import sys
import tempfile
import time
import warnings
from pathlib import Path

import timm
import torch
from safetensors.torch import load_file

warnings.filterwarnings("ignore")
RUN = {}


def exported(request, path):
    network = timm.create_model(request["network"], pretrained=False, features_only=True, out_indices=request["out_indices"])
    unknown = network.load_state_dict(load_file(request["weights"]), strict=False).unexpected_keys
    if unknown:
        raise SystemExit(f"Weights of another network: {unknown[:3]}")
    images = torch.rand(request["batch"], 3, request["size"], request["size"], generator=torch.Generator().manual_seed(0))
    torch.onnx.export(network.eval(), (images,), str(path), input_names=["images"], verbose=False)
    with torch.inference_mode():
        return images, network(images)


def onnxruntime(path, images, threads):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"images": images.numpy()})


def openvino(path, images, threads, **precision):
    import openvino

    settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", **precision}
    compiled = openvino.compile_model(openvino.convert_model(str(path)), "CPU", settings)
    return lambda: list(compiled(images.numpy()).values())


def openvino_fp32(path, images, threads):
    return openvino(path, images, threads, INFERENCE_PRECISION_HINT="f32")


ENGINES = {"onnxruntime": onnxruntime, "OpenVINO": openvino, "OpenVINO, fp32": openvino_fp32}


def load(request):
    RUN.clear()
    missing, differences = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        images, expected = exported(request, path)
        for name, engine in ENGINES.items():
            try:
                RUN[name] = engine(path, images, request["threads"])
            except ImportError as error:
                missing[name] = str(error)
                continue
            pairs = zip(RUN[name](), expected, strict=True)
            differences[name] = max(float((torch.as_tensor(got) - true).norm() / true.norm()) for got, true in pairs)
    versions = {name: importlib.metadata.version(name) for name in ("torch", "timm", "onnxruntime", "openvino") if name not in missing}
    return {"engines": list(RUN), "missing": missing, "versions": versions, "differences": differences}


def forward(name, passes):
    start = time.perf_counter()
    for _ in range(passes):
        RUN[name]()
    return {"seconds": (time.perf_counter() - start) / passes}


for line in sys.stdin:
    request = json.loads(line)
    answer = load(request["load"]) if "load" in request else forward(request["forward"], request["passes"])
    print(json.dumps(answer), flush=True)
