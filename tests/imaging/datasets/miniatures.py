"""Data sets of a few generated images in the true layouts of the public ones: folders, names and headers are theirs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import h5py
import nibabel
import numpy as np
from PIL import Image

SIDE = 24


def picture(path: Path, seed: int = 0, size: tuple[int, int] = (SIDE, SIDE), mode: str = "RGB") -> Path:
    """An image of smooth noise, as PNG, JPEG or TIFF by the name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).resize(size, Image.Resampling.BICUBIC).save(path)
    return path


def nifti(
    path: Path, values_XYZ: np.ndarray, spacing_mm: tuple[float, float, float] = (1, 1, 2), *, shift_mm: float = 0
) -> Path:
    """A volume in LPS order, as BraTS has it; the voxel grid shifted along x by `shift_mm`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    affine = np.diag([-spacing_mm[0], -spacing_mm[1], spacing_mm[2], 1.0])
    affine[0, 3] = shift_mm
    nibabel.Nifti1Image(values_XYZ, affine).to_filename(path)
    return path


def grey_volume(seed: int, shape: tuple[int, ...] = (8, 10, 6)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 1000, shape).astype(np.int16)


def class_volume(seed: int, values: tuple[int, ...], shape: tuple[int, ...] = (8, 10, 6)) -> np.ndarray:
    return np.random.default_rng(seed).choice(np.array((0, *values), np.uint8), shape)


def make_ham10000(folder: Path) -> Path:
    """Kaggle's layout: 14 images of 10 lesions, each of the 7 classes, halved over two folders."""
    rows = ["lesion_id,image_id,dx,dx_type,age,sex,localization"]
    classes = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
    for number in range(14):
        image_id = f"ISIC_{27419 + number:07d}"
        part = 1 if number < 7 else 2
        picture(folder / f"HAM10000_images_part_{part}" / f"{image_id}.jpg", number)
        # Images 0 and 7, 1 and 8, 2 and 9, 3 and 10 show one lesion.
        lesion = number % 7 if number < 11 else number
        rows.append(f"HAM_{lesion:07d},{image_id},{classes[number % 7]},histo,80.0,male,scalp")
    (folder / "HAM10000_metadata.csv").write_text("\n".join(rows) + "\n")
    (folder / "hmnist_28_28_RGB.csv").write_text("pixel0000,label\n0,0\n")
    return folder


def make_pcam(folder: Path, counts: tuple[int, int, int] = (6, 3, 4), *, meta: bool = True) -> Path:
    """The original layout: HDF5 of 96 x 96 patches, with the slide of each in _meta.csv."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, (split, count) in enumerate(zip(("train", "valid", "test"), counts, strict=True)):
        rng = np.random.default_rng(number)
        stem = folder / f"camelyonpatch_level_2_split_{split}"
        with h5py.File(f"{stem}_x.h5", "w") as file:
            file.create_dataset("x", data=rng.integers(0, 256, (count, 96, 96, 3), dtype=np.uint8))
        labels = np.arange(count, dtype=np.uint8) % 2
        with h5py.File(f"{stem}_y.h5", "w") as file:
            file.create_dataset("y", data=labels.reshape(-1, 1, 1, 1))
        if meta:
            rows = [",coord_y,coord_x,tumor_patch,center_tumor_patch,wsi"]
            rows += [
                f"{i},{100 * i},{200 * i},{bool(label)},{bool(label)},camelyon16_{split}_tumor_{i // 2:03d}"
                for i, label in enumerate(labels)
            ]
            Path(f"{stem}_meta.csv").write_text("\n".join(rows) + "\n")
    return folder


def make_pcam_kaggle(folder: Path) -> Path:
    """Kaggle's layout: TIFF files named by a hash, train_labels.csv, a test folder without labels."""
    rows = ["id,label"]
    for number in range(6):
        patch = f"{number:040x}"
        picture(folder / "train" / f"{patch}.tif", number, (96, 96))
        rows.append(f"{patch},{number % 2}")
    for number in range(6, 8):
        picture(folder / "test" / f"{number:040x}.tif", number, (96, 96))
    (folder / "train_labels.csv").write_text("\n".join(rows) + "\n")
    (folder / "sample_submission.csv").write_text("id,label\n")
    return folder


def make_aptos2019(folder: Path) -> Path:
    """Kaggle's layout: 10 graded images, 2 test images without a grade."""
    rows = ["id_code,diagnosis"]
    for number in range(10):
        picture(folder / "train_images" / f"{number:012x}.png", number)
        rows.append(f"{number:012x},{number % 5}")
    for number in range(10, 12):
        picture(folder / "test_images" / f"{number:012x}.png", number)
    (folder / "train.csv").write_text("\n".join(rows) + "\n")
    (folder / "test.csv").write_text("id_code\n" + "\n".join(f"{number:012x}" for number in range(10, 12)) + "\n")
    return folder


def make_chestxray14(folder: Path) -> Path:
    """Kaggle's layout: 8 radiographs of 4 patients in two folders, lists of the splits, boxes."""
    findings = ("Cardiomegaly|Effusion", "No Finding", "Infiltration", "No Finding", "Mass|Nodule|Pneumothorax")
    header = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    rows = [header + "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],"]
    names = []
    for number in range(8):
        patient, visit = number // 2 + 1, number % 2
        name = f"{patient:08d}_{visit:03d}.png"
        place = "images_001" if number < 4 else "images_002"
        picture(folder / place / "images" / name, number, (64, 64), mode="L")
        rows.append(f"{name},{findings[number % 5]},{visit},{patient},058,M,PA,2682,2749,0.143,0.143,")
        names.append(name)
    (folder / "Data_Entry_2017.csv").write_text("\n".join(rows) + "\n")
    (folder / "train_val_list.txt").write_text("\n".join(names[:6]) + "\n")
    (folder / "test_list.txt").write_text("\n".join(names[6:]) + "\n")
    boxes = ["Image Index,Finding Label,Bbox [x,y,w,h],,,", f"{names[0]},Cardiomegaly,10.5,20.25,30,12,,,"]
    boxes.append(f"{names[2]},Infiltrate,1,2,3,4,,,")
    (folder / "BBox_List_2017.csv").write_text("\n".join(boxes) + "\n")
    return folder


def make_brats(folder: Path, *, cases: int = 3, since_2023: bool = False) -> Path:
    """Case folders of 2021 (`_t1ce.nii.gz`), or of 2023 (`-t1c.nii.gz`) with two examinations of the first patient."""
    for number in range(cases):
        if since_2023:
            patient, visit = max(0, number - 1), 1 if number == 1 else 0
            case, sign = f"BraTS-GLI-{patient:05d}-{visit:03d}", "-"
            channels, values = ("t1n", "t1c", "t2w", "t2f"), (1, 2, 3)
        else:
            case, sign = f"BraTS2021_{number:05d}", "_"
            channels, values = ("t1", "t1ce", "t2", "flair"), (1, 2, 4)
        for index, channel in enumerate(channels):
            nifti(folder / case / f"{case}{sign}{channel}.nii.gz", grey_volume(10 * number + index))
        nifti(folder / case / f"{case}{sign}seg.nii.gz", class_volume(number, values))
    return folder


def make_decathlon(folder: Path, *, cases: int = 3) -> Path:
    """Task05_Prostate: 4-D images of two channels, two classes, one test case."""
    names = [f"prostate_{number:02d}.nii.gz" for number in range(cases + 1)]
    for number, name in enumerate(names[:-1]):
        nifti(folder / "imagesTr" / name, grey_volume(number, (8, 10, 6, 2)))
        nifti(folder / "labelsTr" / name, class_volume(number, (1, 2)))
    nifti(folder / "imagesTs" / names[-1], grey_volume(cases, (8, 10, 6, 2)))
    (folder / "imagesTr" / f"._{names[0]}").write_bytes(b"AppleDouble")  # macOS leaves such in the archives
    tree = {
        "name": "PROSTATE",
        "description": "Prostate transitional zone and peripheral zone segmentation",
        "reference": "Radboud University, Nijmegen Medical Centre",
        "licence": "CC-BY-SA 4.0",
        "relase": "1.0 04/05/2018",
        "tensorImageSize": "4D",
        "modality": {"0": "T2", "1": "ADC"},
        "labels": {"0": "background", "1": "PZ", "2": "TZ"},
        "numTraining": cases,
        "numTest": 1,
        "training": [{"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"} for name in names[:-1]],
        "test": [f"./imagesTs/{names[-1]}"],
    }
    (folder / "dataset.json").write_text(json.dumps(tree))
    return folder


def make_medmnist(
    path: Path,
    *,
    counts: tuple[int, int, int] = (12, 4, 6),
    shape: tuple[int, ...] = (28, 28),
    classes: int = 2,
    multi_label: bool = False,
) -> Path:
    """An npz archive; `path` names the set: pneumoniamnist.npz, pathmnist.npz, chestmnist.npz, organmnist3d.npz."""
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {}
    for number, (split, count) in enumerate(zip(("train", "val", "test"), counts, strict=True)):
        rng = np.random.default_rng(number)
        arrays[f"{split}_images"] = rng.integers(0, 256, (count, *shape), dtype=np.uint8)
        if multi_label:
            arrays[f"{split}_labels"] = rng.integers(0, 2, (count, classes), dtype=np.uint8)
        else:
            arrays[f"{split}_labels"] = (np.arange(count, dtype=np.uint8) % classes)[:, None]
    np.savez_compressed(path, **arrays)
    return path


def make_glas(folder: Path, *, patients: int = 4) -> Path:
    """Images and binary masks (0, 255) with a manifest; its path. Two images a patient, grade by patient."""
    rows = ["image_id,image_path,mask_path,patient,label"]
    for number in range(2 * patients):
        name = f"train_{number + 1}"
        picture(folder / "images" / f"{name}.jpg", number, (40, 32))
        mask = np.zeros((32, 40), np.uint8)
        mask[4 : 12 + number, 6:20] = 255
        (folder / "masks").mkdir(exist_ok=True)
        Image.fromarray(mask).save(folder / "masks" / f"{name}.png")
        patient = number // 2
        rows.append(f"{name},images/{name}.jpg,masks/{name}.png,{patient},{'malignant' if patient % 2 else 'benign'}")
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n")
    return folder / "manifest.csv"


BCSS_REGIONS = ("A1-A0SK", "A2-A0D2", "OL-A66I", "E2-A14N", "A2-A0SX", "D8-A1JG", "BH-A0BG", "C8-A12V")
"""Hospital and patient of TCGA; OL and E2 are test hospitals of the paper."""


def bcss_name(region: str) -> str:
    return f"TCGA-{region}-DX1_xmin1000_ymin2000_MPP-0.2500"


def make_bcss(folder: Path, *, images: str = "rgbs_colorNormalized", regions: Sequence[str] = BCSS_REGIONS) -> Path:
    """Regions of 32 x 40 pixels with masks in which eight of the codes are equally frequent."""
    (folder / "masks").mkdir(parents=True)
    for number, region in enumerate(regions):
        picture(folder / images / f"{bcss_name(region)}.png", number, (40, 32))
        mask = np.random.default_rng(number).choice(np.array([0, 1, 2, 3, 4, 7, 9, 18], np.uint8), (32, 40))
        Image.fromarray(mask).save(folder / "masks" / f"{bcss_name(region)}.png")
    return folder


def make_brain(folder: Path, *, patients: int = 3) -> Path:
    """Two MRI channels a case with a tumour mask and a manifest; its path. The second case lacks a channel."""
    rows = ["case_id,flair,t1post,mask,patient"]
    for number in range(patients + 1):
        patient = f"PGBM-{max(0, number - 1):03d}"
        case = f"{patient}_t{2 if number == 1 else 1}"
        nifti(folder / f"{case}_flair.nii.gz", grey_volume(number))
        second = "" if number == 1 else f"{case}_t1post.nii.gz"
        if second:
            nifti(folder / second, grey_volume(100 + number))
        nifti(folder / f"{case}_tumor.nii.gz", class_volume(number, (1,)))
        rows.append(f"{case},{case}_flair.nii.gz,{second},{case}_tumor.nii.gz,{patient}")
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n")
    return folder / "manifest.csv"


def make_class_folder(folder: Path, *, each: int = 3, classes: tuple[str, ...] = ("cat", "dog")) -> Path:
    """One subfolder per class; file names begin with the patient: p0_0.png."""
    for number, name in enumerate(classes):
        for index in range(each):
            picture(folder / name / f"p{number}{index // 2}_{index}.png", 10 * number + index)
    return folder
