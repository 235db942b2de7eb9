"""Tiny data sets on disk, one builder per layout; every image is drawn from a seed."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = (12, 16)
"""Height and width of every image, unless said otherwise."""


def draw_image(path: Path, seed: int = 0, *, size: tuple[int, int] = SIZE, mode: str = "RGB") -> Path:
    """Write one smooth noisy image; format by suffix."""
    rng = np.random.default_rng(seed)
    base = np.linspace(40, 200, size[1])[None, :, None] + rng.normal(0, 12, (*size, 3))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(base.clip(0, 255).astype(np.uint8)).convert(mode).save(path)
    return path


def mask(
    path: Path,
    *,
    size: tuple[int, int] = SIZE,
    value: int = 255,
    box: tuple[int, int, int, int] = (2, 3, 6, 9),
) -> Path:
    """Write one mask: `value` in rows box[0]:box[2], columns box[1]:box[3], 0 elsewhere."""
    values = np.zeros(size, np.uint8)
    values[box[0] : box[2], box[1] : box[3]] = value
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)
    return path


def write_csv(path: Path, rows: Sequence[Sequence[object]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
    return path


def mvtec_category(folder: Path, *, seed: int = 0) -> None:
    """4 train, 2 good, 2 scratch, 1 dent."""
    for index in range(4):
        draw_image(folder / "train" / "good" / f"{index:03}.png", seed + index)
    for index in range(2):
        draw_image(folder / "test" / "good" / f"{index:03}.png", seed + 10 + index)
        draw_image(folder / "test" / "scratch" / f"{index:03}.png", seed + 20 + index)
        mask(folder / "ground_truth" / "scratch" / f"{index:03}_mask.png")
    draw_image(folder / "test" / "dent" / "000.png", seed + 30)
    mask(folder / "ground_truth" / "dent" / "000_mask.png", box=(0, 0, 2, 2))


def mvtec(root: Path) -> None:
    mvtec_category(root / "bottle")
    mvtec_category(root / "gear", seed=100)
    (root / "notes").mkdir()


def visa(root: Path) -> None:
    """Two products as downloaded, with the list 1cls in split_csv/: 3 train, 1 good, 2 anomalous each; rows
    shuffled, masks 0..3."""
    rows: list[Sequence[object]] = []
    for number, name in enumerate(("candle", "pcb1")):
        data = root / name / "Data"
        for index in range(4):
            draw_image(data / "Images" / "Normal" / f"{index:04}.JPG", 100 * number + index)
            rows.append(
                (
                    name,
                    "train" if index else "test",
                    "normal",
                    f"{name}/Data/Images/Normal/{index:04}.JPG",
                    "",
                )
            )
        for index in range(2):
            draw_image(data / "Images" / "Anomaly" / f"{index:03}.JPG", 100 * number + 50 + index)
            mask(data / "Masks" / "Anomaly" / f"{index:03}.png", value=index + 1)
            rows.append(
                (
                    name,
                    "test",
                    "anomaly",
                    f"{name}/Data/Images/Anomaly/{index:03}.JPG",
                    f"{name}/Data/Masks/Anomaly/{index:03}.png",
                )
            )
    write_csv(root / "split_csv" / "1cls.csv", [("object", "split", "label", "image", "mask"), *rows[::-1]])


def visa_prepared(root: Path) -> None:
    """One product as the authors' script lays it out, one class."""
    folder = root / "1cls" / "candle"
    for index in range(3):
        draw_image(folder / "train" / "good" / f"{index:04}.JPG", index)
    draw_image(folder / "test" / "good" / "0100.JPG", 10)
    draw_image(folder / "test" / "bad" / "000.JPG", 20)
    mask(folder / "ground_truth" / "bad" / "000.png")


def magnetic_tile(root: Path) -> None:
    """Two tiles of MT_Free (frames 10-12 and 500), one of MT_Crack (frame 501), one MT_Uneven whose mask is
    known to be empty."""
    frames = {
        "Free": ("exp1_num_10", "exp2_num_11", "exp3_num_12", "exp1_num_500"),
        "Crack": ("exp2_num_501",),
        "Uneven": ("exp3_num_45042",),
    }
    for number, (kind, names) in enumerate(frames.items()):
        for index, name in enumerate(names):
            draw_image(root / f"MT_{kind}" / "Imgs" / f"{name}.jpg", 10 * number + index, mode="L")
            mask(root / f"MT_{kind}" / "Imgs" / f"{name}.png", value=176 if kind == "Crack" else 0)


def ksdd(root: Path) -> None:
    """Items 1..4 with 3 images each; Part2 of each item is defective."""
    for item in range(1, 5):
        for part in range(3):
            draw_image(root / f"kos{item:02}" / f"Part{part}.jpg", 10 * item + part, mode="L")
            mask(root / f"kos{item:02}" / f"Part{part}_label.bmp", value=255 if part == 2 else 0)


def folder(root: Path) -> None:
    """good/ with 3 images and scratch/ with 2, without masks."""
    for index in range(3):
        draw_image(root / "good" / f"g{index}.png", index)
    for index in range(2):
        draw_image(root / "scratch" / f"s{index}.png", 10 + index)


def oct2017(root: Path) -> None:
    """Grey JPEGs, patients 1..: train 3 NORMAL of 2 patients and 1 CNV; test 1 of each class; val 1 NORMAL
    and 1 DME."""
    names = {
        "train": ("NORMAL-1-1", "NORMAL-1-2", "NORMAL-2-1", "CNV-7-1"),
        "test": ("NORMAL-3-1", "CNV-8-1", "DME-9-1", "DRUSEN-10-1"),
        "val": ("NORMAL-4-1", "DME-11-1"),
    }
    for split, images in names.items():
        for number, name in enumerate(images):
            draw_image(
                root / split / name.partition("-")[0] / f"{name}.jpeg", 10 * len(split) + number, mode="L"
            )


def fundus(
    path: Path,
    seed: int = 0,
    *,
    size: tuple[int, int] = (40, 60),
    centre: tuple[int, int] = (20, 30),
    radius: int = 15,
) -> Path:
    """A bright disc on black."""
    y, x = np.mgrid[: size[0], : size[1]]
    disc = (y - centre[0]) ** 2 + (x - centre[1]) ** 2 <= radius**2
    values = np.random.default_rng(seed).integers(90, 200, (*size, 3)) * disc[..., None]
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values.astype(np.uint8)).save(path)
    return path


def aptos(root: Path) -> None:
    """As downloaded: 6 images of grade 0, 1 each of grades 1 to 4, mixed."""
    grades = (0, 2, 0, 0, 4, 0, 1, 0, 3, 0)
    write_csv(
        root / "train.csv", [("id_code", "diagnosis"), *((f"id{n}", grade) for n, grade in enumerate(grades))]
    )
    for number in range(len(grades)):
        fundus(root / "train_images" / f"id{number}.png", number)


def aptos_prepared(root: Path) -> None:
    """As the script of ReContrast leaves it: 3 train, 1 normal and 2 abnormal to test on."""
    for name in (
        "train/NORMAL/a",
        "train/NORMAL/b",
        "train/NORMAL/c",
        "test/NORMAL/d",
        "test/ABNORMAL/e",
        "test/ABNORMAL/f",
    ):
        fundus(root / f"{name}.png", ord(name[-1]), size=(32, 32), centre=(16, 16))


def isic2018(root: Path) -> None:
    """As downloaded: training 4 NV (two of one lesion), 1 MEL; validation 2 NV, 1 BCC, 1 VASC."""
    kinds = ("MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC")
    for part, found in (
        ("Training", ("NV", "NV", "MEL", "NV", "NV")),
        ("Validation", ("NV", "BCC", "NV", "VASC")),
    ):
        name = f"ISIC2018_Task3_{part}"
        rows = [
            (f"ISIC_{part[0]}{n}", *(float(kind == one) for one in kinds)) for n, kind in enumerate(found)
        ]
        write_csv(root / f"{name}_GroundTruth" / f"{name}_GroundTruth.csv", [("image", *kinds), *rows])
        for n in range(len(found)):
            draw_image(root / f"{name}_Input" / f"ISIC_{part[0]}{n}.jpg", n)
    lesions = [(f"ISIC_T{n}", f"HAM_{max(n, 1)}", "histopathology") for n in range(5)]
    write_csv(
        root / "ISIC2018_Task3_Training_LesionGroupings.csv",
        [("image", "lesion_id", "diagnosis_confirm_type"), *lesions],
    )


def mvtec_loco(root: Path) -> None:
    """One category: 3 train, 1 validation, 2 good; 1 structural (two defects that overlap), 2 logical with
    one defect each."""
    folder = root / "pushpins"
    for name in (
        "train/good/000",
        "train/good/001",
        "train/good/002",
        "validation/good/000",
        "test/good/000",
        "test/good/001",
    ):
        draw_image(folder / f"{name}.png", len(name))
    draw_image(folder / "test" / "structural_anomalies" / "000.png", 30)
    mask(folder / "ground_truth" / "structural_anomalies" / "000" / "000.png", value=255)
    mask(folder / "ground_truth" / "structural_anomalies" / "000" / "001.png", value=254, box=(4, 6, 10, 12))
    for number in range(2):
        draw_image(folder / "test" / "logical_anomalies" / f"{number:03}.png", 40 + number)
        mask(folder / "ground_truth" / "logical_anomalies" / f"{number:03}" / "000.png", value=250 + number)
    entries = [
        ("scratch", 255, 1.0, True),
        ("dent", 254, 0.5, True),
        ("missing", 250, 10, False),
        ("extra", 251, 1000, False),
    ]
    keys = ("defect_name", "pixel_value", "saturation_threshold", "relative_saturation")
    (folder / "defects_config.json").write_text(
        json.dumps([dict(zip(keys, entry, strict=True)) for entry in entries])
    )


def aitex(root: Path) -> None:
    """22 good strips of two fabrics, 256 x 264, three defective ones, 256 x 600 (one with two masks), and one
    known to have no mask."""
    size = (256, 600)
    for number in range(22):
        name = f"{number:04}_000_{number % 2:02}.png"
        folder = root / "NODefect_images" / f"fabric{number % 2}"
        draw_image(folder / name, number, size=(256, 264), mode="L")
    for number, name in enumerate(("0111_002_00", "0112_019_01", "0113_036_01", "0100_025_08")):
        draw_image(root / "Defect_images" / f"{name}.png", 30 + number, size=size, mode="L")
    masks = root / "Mask_images"
    mask(masks / "0111_002_00_mask.png", size=size, box=(0, 0, 9, 9))
    mask(masks / "0112_019_01_mask1.png", size=size, box=(20, 30, 25, 35))
    mask(masks / "0112_019_01_mask2.png", size=size, box=(100, 400, 140, 440))
    mask(masks / "0113_036_01_mask.png", size=size, box=(200, 580, 256, 600))


def volume(path: Path, seed: int, *, shape: tuple[int, int, int] = (4, 12, 16)) -> Path:
    """A grey volume (z, y, x), uint8, as .npy or TIFF stack by its suffix."""
    values = np.random.default_rng(seed).integers(60, 200, shape, dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, values)
    else:
        pages = [Image.fromarray(page) for page in values]
        pages[0].save(path, save_all=True, append_images=pages[1:])
    return path


def semicon(root: Path) -> None:
    """Two good volumes and one defective, whose mask marks slices 1 and 2 of 4."""
    volume(root / "good" / "die0.npy", 0)
    volume(root / "good" / "die1.tif", 1)
    volume(root / "defect" / "die2.npy", 2)
    marks = np.zeros((4, 12, 16), np.uint8)
    marks[1:3, 3:8, 4:9] = 1
    (root / "masks").mkdir()
    np.save(root / "masks" / "die2.npy", marks)


def cifar_pictures(seed: int, count: int) -> np.ndarray:
    """(count, 32, 32, 3) uint8, smooth and noisy."""
    base = np.linspace(40, 200, 32)[None, None, :, None]
    noisy = base + np.random.default_rng(seed).normal(0, 20, (count, 32, 32, 3))
    return noisy.clip(0, 255).astype(np.uint8)


def cifar_records(path: Path, labels: Sequence[Sequence[int]], seed: int) -> Path:
    """One file of the binary version: label bytes and three planes of bytes a picture."""
    pictures = cifar_pictures(seed, len(labels)).transpose(0, 3, 1, 2).reshape(len(labels), -1)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.concatenate([np.array(labels, np.uint8), pictures], axis=1).tofile(path)
    return path


def cifar10(root: Path) -> None:
    """The binary version: 2 training pictures of each class in 5 files, 1 test picture of each."""
    for number in range(5):
        labels = [[(4 * number + n) % 10] for n in range(4)]
        cifar_records(root / "cifar-10-batches-bin" / f"data_batch_{number + 1}.bin", labels, number)
    cifar_records(root / "cifar-10-batches-bin" / "test_batch.bin", [[9 - n] for n in range(10)], 9)


def cifar100(root: Path) -> None:
    """The binary version: for each superclass 2 training pictures and 1 test picture, in real names."""
    from kizu.datasets.cifar100_c import SUPERCLASSES

    folder = root / "cifar-100-binary"
    cifar_records(folder / "train.bin", [[n % 20, n] for n in range(40)], 0)
    cifar_records(folder / "test.bin", [[n, n + 20] for n in range(20)], 1)
    (folder / "coarse_label_names.txt").write_text("\n".join(SUPERCLASSES) + "\n\n")
    (folder / "fine_label_names.txt").write_text("\n".join(f"kind_{n}" for n in range(100)) + "\n")


def corrupted_arrays(folder: Path, labels: Sequence[int], *, names: Sequence[str] = ()) -> None:
    """Official arrays: five levels, each picture a flat grey of its level and corruption."""
    from kizu.datasets.cifar10_c import NINE

    folder.mkdir(parents=True)
    count = len(labels)
    np.save(folder / "labels.npy", np.tile(np.array(labels, np.uint8), 5))
    for number, name in enumerate(names or NINE):
        grey = np.repeat(np.arange(1, 6), count) * 40 + number
        np.save(
            folder / f"{name}.npy",
            np.broadcast_to(grey[:, None, None, None], (5 * count, 32, 32, 3)).astype(np.uint8),
        )


def cifar10_c(root: Path) -> None:
    cifar10(root)
    corrupted_arrays(root / "CIFAR-10-C", [9 - n for n in range(10)])


def cifar100_c(root: Path) -> None:
    cifar100(root)
    corrupted_arrays(root / "CIFAR-100-C", [n + 20 for n in range(20)])


def btad(root: Path) -> None:
    """Two products: 3 train, 1 good and 2 defective each; 03 has BMP images and masks, 02 PNG."""
    for number, (name, suffix) in enumerate((("02", "png"), ("03", "bmp"))):
        for index in range(3):
            draw_image(root / name / "train" / "ok" / f"{index:04}.{suffix}", 100 * number + index)
        draw_image(root / name / "test" / "ok" / f"0000.{suffix}", 100 * number + 10)
        for index in range(2):
            draw_image(root / name / "test" / "ko" / f"{index:04}.{suffix}", 100 * number + 20 + index)
            mask(root / name / "ground_truth" / "ko" / f"{index:04}.{suffix}")
        (root / name / "ground_truth" / "ok").mkdir()


def mpdd(root: Path) -> None:
    """Two parts in the layout of MVTec AD; masks with values below the half of their range."""
    for number, name in enumerate(("connector", "tubes")):
        mvtec_category(root / name, seed=100 * number)
        for file in (root / name / "ground_truth").rglob("*.png"):
            mask(file, value=100)


def mvtec3d(root: Path) -> None:
    """One product: 3 train, 1 validation, 2 good, 2 of two defects (grey values 1 and 2), with 3-D points."""
    folder = root / "bagel"
    places = {"train/good": 3, "validation/good": 1, "test/good": 2, "test/combined": 2}
    for number, (place, count) in enumerate(places.items()):
        for index in range(count):
            draw_image(folder / place / "rgb" / f"{index:03}.png", 10 * number + index)
            draw_image(folder / place / "xyz" / f"{index:03}.tiff", 90 + index)
            mask(folder / place / "gt" / f"{index:03}.png", value=0)
    for index in range(2):
        mask(folder / "test" / "combined" / "gt" / f"{index:03}.png", value=index + 1)


def real_iad(root: Path, *, resolution: str = "512") -> None:
    """One product: parts S0001 to S0004 are good (the first two to learn from), S0005 has a scratch that the
    views C1 and C3 show; all lists of the product."""
    base = root / f"realiad_{resolution}" / "mint"
    entries: dict[str, list[dict[str, object]]] = {"train": [], "test": []}
    for part in range(1, 6):
        kind = "OK" if part < 5 else "NG"
        place = f"{kind}/S{part:04}" if part < 5 else f"NG/HS/S{part:04}"
        for view in range(1, 6):
            name = f"{place}/mint_{part:04}_{kind if part < 5 else 'NG_HS'}_C{view}_2023092019{part}{view}"
            draw_image(base / f"{name}.jpg", 10 * part + view)
            shown = part == 5 and view in (1, 3)
            if shown:
                mask(base / f"{name}.png", value=255)
            entry = {"category": "mint", "anomaly_class": "OK" if part < 5 else "HS"}
            paths = {"image_path": f"{name}.jpg", "mask_path": f"{name}.png" if shown else None}
            entries["train" if part < 3 else "test"].append({**entry, **paths})
    real_iad_lists(root / "realiad_jsons", entries)


def real_iad_lists(folder: Path, entries: dict[str, list[dict[str, object]]]) -> None:
    """The lists of all views, of the first camera, and with the first defective view to learn from."""
    meta = {"prefix": "mint/", "normal_class": "OK", "pre_transform": None}
    first = {
        split: [one for one in part if "_C1_" in str(one["image_path"])] for split, part in entries.items()
    }
    bad = next(one for one in entries["test"] if one["mask_path"])
    noisy = {"train": [*entries["train"], bad], "test": [one for one in entries["test"] if one is not bad]}
    for name, lists in (("", entries), ("_sv", first), ("_fuiad_0.1", noisy)):
        file = folder / f"realiad_jsons{name}" / "mint.json"
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps({"meta": meta, **lists}))


def nothing(root: Path) -> None:
    """For data sets that make their own files: the folder is not even there."""
    root.rmdir()


TREES: dict[str, Callable[[Path], None]] = {
    "folder": folder,
    "mvtec": mvtec,
    "visa": visa,
    "magnetic_tile": magnetic_tile,
    "ksdd": ksdd,
    "oct2017": oct2017,
    "aptos": aptos_prepared,
    "isic2018": isic2018,
    "mvtec_loco": mvtec_loco,
    "planted": nothing,
    "aitex": aitex,
    "semicon": semicon,
    "cifar10": cifar10,
    "cifar10_c": cifar10_c,
    "cifar100_c": cifar100_c,
    "btad": btad,
    "mpdd": mpdd,
    "mvtec3d": mvtec3d,
    "real_iad": real_iad,
}
"""Data set -> what builds a tiny one in an empty folder."""
