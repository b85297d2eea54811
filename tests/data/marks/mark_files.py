"""Files with marks, made on the spot, and COCO's encoding of masks written a second time, one pixel after the other."""

from pathlib import Path

import numpy as np
import pandas as pd

from mxa.data.table import META_COLUMNS, Table
from mxa.labels import NIH14, LabelPolicy

BOX_HEADER = "Image Index,Finding Label,Bbox [x,y,w,h],,,"
BOX_IMAGES = ("00000003_000.png", "00000001_000.png", "00000002_000.png")
BOX_ROWS = (
    "00000001_000.png,Mass,0,0,1024,1024",
    "00000099_000.png,Mass,1,2,3,4",
    "00000003_000.png,Infiltrate,256,128.5,512,300",
    "00000001_000.png,Effusion,1,2,3,4",
    "00000003_000.png,Infiltrate,10,20,30,40",
    "00000098_000.png,Nodule,1,2,3,4",
)


def nih_table(images, labels=NIH14, folder="images_001/images/"):
    """A table of images without any metadata."""
    frame = pd.DataFrame(dict.fromkeys(META_COLUMNS, ""), index=range(len(images)))
    frame = frame.assign(path=[folder + image for image in images], age=np.nan, split="test", row=0)
    shape = (len(images), len(labels))
    return Table.build(frame, np.zeros(shape), np.ones(shape, dtype=bool), labels, LabelPolicy(), Path(), "nih")


def write_box_list(path, rows=BOX_ROWS, header=BOX_HEADER):
    """NIH's BBox_List_2017.csv."""
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def encode_rle(mask):
    """rleEncode and rleToString of maskApi.c, pixel by pixel."""
    runs, current = [0], False
    for value in mask.T.ravel():
        if value != current:
            runs.append(0)
            current = value
        runs[-1] += 1
    text = ""
    for i, run in enumerate(runs):
        number = run - runs[i - 2] if i > 2 else run
        more = True
        while more:
            code = number % 32
            number //= 32
            more = number != (-1 if code >= 16 else 0)
            text += chr(48 + code + 32 * more)
    return text


def decode_rle_by_hand(counts, height, width):
    """rleFrString and rleDecode of maskApi.c, character by character."""
    runs, value, shift = [], 0, 0
    for character in counts:
        code = ord(character) - 48
        value += (code % 32) * 2**shift
        shift += 5
        if code < 32:
            if code >= 16:
                value -= 2**shift
            if len(runs) > 2:
                value += runs[-2]
            runs.append(value)
            value, shift = 0, 0
    flat = []
    for i, run in enumerate(runs):
        flat += [i % 2 == 1] * run
    mask = np.zeros((height, width), dtype=bool)
    for k, value in enumerate(flat):
        mask[k % height, k // height] = value
    assert len(flat) == height * width
    return mask
