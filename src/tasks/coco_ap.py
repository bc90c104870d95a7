# SPDX-License-Identifier: Apache-2.0
"""COCO's average precision and recall of boxes and masks, by pycocotools."""

import contextlib
import io

import numpy as np
from pycocotools import mask as coco
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from src.data.box_split import areas_of
from src.data.coco_masks import NONE

# The twelve numbers, in COCO's order; ar1, ar10 and ar100 are recalls at so many detections of an image.
NUMBERS = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")
NUMBERS += ("ar1", "ar10", "ar100", "ar_small", "ar_medium", "ar_large")
_AP50, _AP75 = 0, 5  # among the thresholds, 0.5 to 0.95


def truth_of(listed, kind):
    """Return what there is in the images of a `BoxSplit`, as the content of a COCO file.

    As the file says it, also what no training takes, but without categories that are no classes. Annotations get new
    ids, as pycocotools takes one with the id 0 for missed. With `kind` "segm" boxes without a mask are regions to be
    ignored.

    Args:
        kind (str): "bbox" or "segm".
    """
    file, rows = listed.file, listed.file.rows
    annotations = []
    area = areas_of(file)
    for row in np.flatnonzero(listed.label_of[rows["category"]] >= 0):
        image, is_crowd, box = rows["image"][row], bool(rows["is_crowd"][row]), rows["box"][row].tolist()
        more = {}
        if kind == "segm" and rows["mask"][row] == NONE:
            is_crowd, (x, y, width, height) = True, box
            more = {"segmentation": [[x, y, x + width, y, x + width, y + height, x, y + height]]}
        elif kind == "segm":
            more = {"segmentation": listed.run_lengths(row)}
        ids = {"image_id": int(file.image_ids[image]), "category_id": int(file.category_ids[rows["category"][row]])}
        annotations.append(
            {"id": len(annotations) + 1, **ids, "bbox": box, "area": float(area[row]), "iscrowd": int(is_crowd), **more}
        )
    return {
        "images": [
            {"id": id, "height": height, "width": width}
            for id, (height, width) in zip(file.image_ids.tolist(), file.sizes.tolist())
        ],
        "annotations": annotations,
        "categories": [
            {"id": id, "name": name} for id, name in zip(listed.category_ids().tolist(), listed.names, strict=True)
        ],
    }


def average_precision(truth, results, kind, most=100):
    """Return the twelve numbers, and AP and AP50 of each category, in percent, -1 where there is nothing to find.

    Masks are large or small by their own areas, boxes by theirs.

    Args:
        truth (dict): the content of a COCO file, as `truth_of` returns it.
        results (list): in COCO's format of results: image_id, category_id, score, and bbox or segmentation; they are
            changed.
        kind (str): "bbox" or "segm".
        most (int): detections of an image that count, the best; 100 of COCO's, or more.

    Returns:
        tuple: {number: value}, and {category id: (AP, AP50)}.
    """
    for number, result in enumerate(results, 1):
        area = coco.area(result["segmentation"]) if kind == "segm" else result["bbox"][2] * result["bbox"][3]
        result.update(id=number, iscrowd=0, area=float(area))
    with contextlib.redirect_stdout(io.StringIO()):  # it tells each of its steps
        judged = COCOeval(_index(truth), _index({**truth, "annotations": results}), kind)
        judged.params.maxDets = [1, 10, max(most, 100)]
        judged.evaluate()
        judged.accumulate()
    # (thresholds, recalls, categories, areas, detections), and the same without recalls.
    precision, recall = judged.eval["precision"][..., -1], judged.eval["recall"]
    values = [
        *(precision[..., 0], precision[_AP50, ..., 0], precision[_AP75, ..., 0]),
        *(precision[..., area] for area in (1, 2, 3)),
        *(recall[..., 0, number] for number in (0, 1, 2)),
        *(recall[..., area, -1] for area in (1, 2, 3)),
    ]
    by_category = {
        id: (_mean(precision[:, :, number, 0]), _mean(precision[_AP50, :, number, 0]))
        for number, id in enumerate(judged.params.catIds)
    }
    return dict(zip(NUMBERS, map(_mean, values), strict=True)), by_category


def _index(content):
    indexed = COCO()
    indexed.dataset = content
    indexed.createIndex()
    return indexed


def _mean(values):
    there = values[values > -1]
    return float(100 * there.mean()) if there.size else -1.0
