"""What a model saw in a radiograph, in numbers: probabilities, class-activation maps and MXA boxes, in its own pixels.

Shapes: H x W the radiograph, L findings, h x w the network's last map.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from mxa.data.dicom import check_views
from mxa.deploy.sources import known_views, read_source
from mxa.errors import ConfigError
from mxa.evaluation.metrics import sigmoid
from mxa.labels import LabelSet
from mxa.models.artifact import Classifier
from mxa.models.cam import class_activation_maps
from mxa.preprocess import Box

Window = tuple[float, float, float, float]


@dataclass(frozen=True)
class Explanation:
    """One radiograph and what a model made of it.

    Attributes:
        name: of the radiograph, such as its path.
        grey: (H, W) uint8, the radiograph at full resolution.
        labels: the L findings.
        logit: (L,) float64.
        maps: (L, h, w) float32, class-activation maps over the network's input, in logits; each map's mean is its
            logit.
        window: left, top, right, bottom of what the network saw, in pixels of ``grey``; with the fit "pad" it reaches
            beyond them, with "crop" it leaves some of them out.
        boxes: of each MXA block by name (``stages.0.blocks.0``) x1, y1, x2, y2 in pixels of ``grey``, cut at its
            edges. Empty without MXA.
        notes: what a reader must know of the radiograph, such as why its DICOM file would have been refused.
    """

    name: str
    grey: npt.NDArray[np.uint8]
    labels: LabelSet
    logit: npt.NDArray[np.float64]
    maps: npt.NDArray[np.float32]
    window: Window
    boxes: Mapping[str, Box]
    notes: tuple[str, ...] = ()

    @property
    def probability(self) -> npt.NDArray[np.float64]:
        """(L,) in [0, 1], uncalibrated: the sigmoid of the logits."""
        return sigmoid(self.logit)

    def top(self, count: int) -> tuple[str, ...]:
        """The findings of the highest probabilities, the highest first; all of them if there are fewer."""
        return tuple(self.labels.findings[j] for j in np.argsort(-self.logit, kind="stable")[:count])

    def heat(self, finding: str) -> npt.NDArray[np.float32]:
        """A finding's map on the radiograph's own pixels.

        Returns:
            (H, W) float32, in logits: bilinear between the centres of the map's cells, constant beyond the outermost
            ones. NaN where the network did not look: pixels whose centre is outside the window.

        Raises:
            ConfigError: there is no such finding.
        """
        return stretch(self.maps[self.labels.index(finding)], self.window, *self.grey.shape[::-1])


def explain(
    classifier: Classifier, files: Iterable[str | Path], *, views: Collection[str] = (), force: bool = False
) -> list[Explanation]:
    """Explain image files, one after the other.

    Args:
        classifier: the model.
        files: DICOM files, and what Pillow knows.
        views: of DICOM files, those that are accepted, see :func:`mxa.data.dicom.read_dicom`; empty are those that the
            model knows.
        force: accept DICOM files that are no chest radiograph of these views; the notes say why they would be refused.

    Raises:
        ConfigError: a view is unknown, the network has no exact class-activation maps, or a DICOM file needs a package
            that is missing.
        DataError: a file cannot be read or is refused; the message names it.
    """
    if views:
        check_views(views)
    views = views or known_views(classifier.training)
    explained = []
    for file in files:
        source = read_source(file, classifier.preprocess, views=views, force=force)
        explained.append(replace(explain_grey(classifier, source.grey, source.name), notes=source.notes))
    return explained


def explain_grey(classifier: Classifier, grey: npt.NDArray[np.uint8], name: str = "") -> Explanation:
    """Explain one radiograph that is decoded already.

    Args:
        classifier: the model.
        grey: (H, W) uint8, any size.
        name: of the radiograph.

    Raises:
        ConfigError: the network has no exact class-activation maps.
        DataError: padded to a square, the radiograph would be too large.
    """
    contract = classifier.preprocess
    height, width = grey.shape
    pixels = contract.resize(grey, name=name or "the picture")
    found = class_activation_maps(classifier, torch.from_numpy(pixels)[None, None])
    return Explanation(
        name=name,
        grey=grey,
        labels=classifier.labels,
        logit=found.logits[0].double().cpu().numpy(),
        maps=found.maps[0].cpu().numpy(),
        window=contract.window(width, height),
        boxes=contract.place({block: boxes[0].cpu() for block, boxes in found.boxes.items()}, width, height),
    )


def stretch(cells: npt.NDArray[np.floating], window: Window, width: int, height: int) -> npt.NDArray[np.float32]:
    """Lay a map over a picture; see :meth:`Explanation.heat`.

    Args:
        cells: (h, w), a map whose cells divide the window evenly.
        window: left, top, right, bottom in the picture's pixels.
        width: of the picture.
        height: of the picture.

    Returns:
        (height, width) float32, NaN outside the window.
    """
    left, top, right, bottom = window
    rows, columns = cells.shape
    down, across = _weights(rows, top, bottom, height), _weights(columns, left, right, width)
    return np.asarray(down @ cells @ across.T, dtype=np.float32)


def _weights(cells: int, low: float, high: float, pixels: int) -> npt.NDArray[np.float64]:
    """(pixels, cells): the share of each cell in each pixel of one axis. NaN for pixels outside [low, high]."""
    place = (np.arange(pixels) + 0.5 - low) / (high - low)
    at = np.clip(place * cells - 0.5, 0, cells - 1)[:, None]  # in cells, from the centre of the first
    weights = np.maximum(0.0, 1 - np.abs(at - np.arange(cells)))
    weights[(place < 0) | (place > 1)] = np.nan
    return weights


def choose_findings(explanation: Explanation, findings: Sequence[str], count: int) -> tuple[str, ...]:
    """The findings to show: the named ones, or the ``count`` most probable ones where none is named.

    Raises:
        ConfigError: a finding is unknown or named twice, or ``count`` is below 1.
    """
    if count < 1:
        raise ConfigError(f"{count} findings cannot be shown; ask for at least one")
    if repeated := sorted({finding for finding in findings if list(findings).count(finding) > 1}):
        raise ConfigError(f"the findings to show name {', '.join(repeated)} twice; name each once")
    for finding in findings:
        explanation.labels.index(finding)
    return tuple(findings) or explanation.top(count)
