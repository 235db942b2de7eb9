"""Examples that stand below the help of each command. A test reads every one of them by its command."""

from __future__ import annotations

EXAMPLES: dict[str, tuple[str, ...]] = {
    "fit": (
        "kizu fit photos/good -o model.kizu",
        "kizu fit photos/good --false-alarm-rate 0.01 -o model.kizu",
        "kizu fit photos/good --detector padim --set dimensions=200 -o model.kizu",
        "kizu fit photos/good --roi 400,250,800,600 -o model.kizu",
        "kizu fit photos/good --robust -o model.kizu",
        "kizu fit photos/good --leave-out model.kizu.suspicious/leave_out.txt -o model.kizu --overwrite",
        "kizu fit mvtec --dataset mvtec --category screw -o screw.kizu",
    ),
    "adapt": (
        "kizu adapt photos/good --adaptation residual -o adapted",
        "kizu adapt photos/good --adaptation adabn --image-size 224 -o adapted",
    ),
    "inspect": (
        "kizu inspect model.kizu new_parts -o inspected",
        "kizu inspect model.kizu part.jpg --json -o inspected",
        "kizu inspect model.kizu new_parts --csv --maps tiff -o inspected",
    ),
    "calibrate": (
        "kizu calibrate model.kizu --false-alarm-rate 0.05",
        "kizu calibrate model.kizu --threshold 3.2 -o sharper.kizu",
        "kizu calibrate model.kizu photos_of_today --false-alarm-rate 0.05",
    ),
    "update": (
        "kizu update model.kizu photos_of_today",
        "kizu update model.kizu photos/good --false-alarm-rate 0.05 -o updated.kizu",
    ),
    "evaluate": (
        "kizu evaluate model.kizu labelled -o run",
        "kizu evaluate screw.kizu mvtec --dataset mvtec --category screw -o run",
    ),
    "demo": ("kizu demo", "kizu demo --quick -o small_demo"),
    "bench": ("kizu bench experiments/mvtec_small.toml --data datasets -o runs/mvtec",),
    "pretrain": (
        "kizu pretrain simsiam --spd --data photos -o representation",
        "kizu pretrain --resume -o representation",
    ),
    "attention": ("kizu attention labelled --representation timm/resnet50.tv_in1k@4 -o attention",),
    "diagnose": ("kizu diagnose labelled --variant A --variant full -o diagnosis",),
    "list": (
        "kizu list",
        "kizu list detectors",
        "kizu list detectors patchcore",
        "kizu list representations",
    ),
    "data check": (
        "kizu data check mvtec datasets/mvtec",
        "kizu data check cifar10 datasets/cifar10 --category cat",
    ),
}
"""Command -> what may be typed."""


def epilog(command: str) -> str:
    """The examples of a command as its help shows them, each on its own line."""
    lines = EXAMPLES[command]
    return "\b\n" + "\n".join(["Examples:" if len(lines) > 1 else "Example:", *(f"  {one}" for one in lines)])
