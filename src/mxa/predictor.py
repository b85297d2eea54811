"""Predict with a saved or an exported model: from a picture to named logits, probabilities, decisions and regions.

Nothing here needs torch. A runtime executes the network; of an exported model in ONNX Runtime or OpenVINO it needs no
torch either, so that ``pip install mxa[onnx]`` is enough.

Shapes: B pictures, L findings, S the side of the network's input in pixels.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, overload

import numpy as np
import numpy.typing as npt

from mxa.data.dicom import check_views
from mxa.deploy.sources import Source, known_views, read_source
from mxa.errors import ArtifactError
from mxa.evaluation.metrics import sigmoid
from mxa.evaluation.tuning import Tuning
from mxa.labels import LabelSet
from mxa.preprocess import Box, Preprocess

if TYPE_CHECKING:
    from PIL import Image

    Picture = str | Path | npt.NDArray[Any] | Image.Image
    """A file, (H, W) uint8 pixels or a Pillow image; see :func:`mxa.deploy.sources.read_source`."""

BATCH_SIZE = 32


class Runtime(Protocol):
    """What executes a network."""

    name: str
    """torch, onnxruntime or openvino."""

    def __call__(
        self, pixels: npt.NDArray[np.uint8]
    ) -> tuple[npt.NDArray[np.float32], dict[str, npt.NDArray[np.float32]]]:
        """Score pictures that :meth:`mxa.preprocess.Preprocess.resize` made.

        Args:
            pixels: (B, 1, S, S) uint8.

        Returns:
            Logits (B, L), and of each MXA block by name the boxes (B, 4): corners x1, y1, x2, y2 in [0, 1] of the
            input. A model without MXA has none.
        """
        ...


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a model says of one picture.

    Attributes:
        source: the file; "" for pixels and Pillow images.
        findings: L names, the order of all that follows.
        logits: (L,) float32, the network's own output; no sigmoid.
        probabilities: (L,) float64 in [0, 1]: the sigmoid of the logits, or calibrated as ``calibration`` says.
        calibration: kind of the calibration that made the probabilities; "" for the plain sigmoid.
        decisions: per finding True (present), False (absent) or None (no threshold could be chosen); None as a whole
            where no operating point was asked for. They are taken on the *uncalibrated* probabilities, for which the
            thresholds were chosen, so that they do not depend on ``calibration``.
        operating_point: name of the operating point that decided; "" for none.
        regions: of each MXA block by name x1, y1, x2, y2 in pixels of the source picture; empty without MXA.
        size: width and height of the source picture in pixels; of a DICOM file after its pixels were made square.
        model_hash: fingerprint of the model, as :func:`mxa.models.artifact.fingerprint`.
        contract_version: version of the preprocessing contract.
        notes: what a reader must know besides, in words.
    """

    source: str
    findings: tuple[str, ...]
    logits: npt.NDArray[np.float32]
    probabilities: npt.NDArray[np.float64]
    calibration: str
    decisions: tuple[bool | None, ...] | None
    operating_point: str
    regions: Mapping[str, Box]
    size: tuple[int, int]
    model_hash: str
    contract_version: int
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; logits, probabilities and decisions by finding."""
        return {
            "source": self.source,
            "logits": dict(zip(self.findings, self.logits.tolist(), strict=True)),
            "probabilities": dict(zip(self.findings, self.probabilities.tolist(), strict=True)),
            "calibration": self.calibration,
            "decisions": None if self.decisions is None else dict(zip(self.findings, self.decisions, strict=True)),
            "operating_point": self.operating_point,
            "regions": {block: list(box) for block, box in self.regions.items()},
            "size": list(self.size),
            "model_hash": self.model_hash,
            "contract_version": self.contract_version,
            "notes": list(self.notes),
        }


@dataclass(frozen=True, eq=False)
class Predictor:
    """A model ready to predict; what :func:`open_predictor` returns.

    Attributes:
        runtime: executes the network.
        labels: the L findings, in the order of the logits.
        preprocess: the contract that turns pictures into the network's input.
        tuning: operating points and calibrations.
        model_hash: fingerprint of the model, as :func:`mxa.models.artifact.fingerprint`.
        config: the contents of the saved model's ``config.json``, which exported files carry as well.
        notes: go to every prediction.
    """

    runtime: Runtime
    labels: LabelSet
    preprocess: Preprocess
    tuning: Tuning
    model_hash: str
    config: Mapping[str, Any]
    notes: tuple[str, ...] = ()

    @property
    def views(self) -> tuple[str, ...]:
        """The views that the model knows, see :func:`mxa.deploy.sources.known_views`."""
        return known_views(self.config.get("training", {}))

    def score(
        self, pixels: npt.NDArray[np.uint8]
    ) -> tuple[npt.NDArray[np.float32], dict[str, npt.NDArray[np.float32]]]:
        """Run the network on pictures that :meth:`mxa.preprocess.Preprocess.resize` made.

        Args:
            pixels: (B, 1, S, S) uint8.

        Returns:
            As :meth:`Runtime.__call__`.

        Raises:
            ValueError: the pixels have another shape or type.
            ArtifactError: a logit is not finite.
        """
        side = self.preprocess.size
        if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[1:] != (1, side, side) or not len(pixels):
            raise ValueError(
                f"pixels must be (B, 1, {side}, {side}) uint8 with B at least 1, got {pixels.shape} {pixels.dtype}"
            )
        logits, boxes = self.runtime(pixels)
        if not np.isfinite(logits).all():
            raise ArtifactError("the model gives logits that are not finite; its weights are damaged")
        return logits, boxes

    @overload
    def predict(
        self,
        images: "Picture",
        *,
        operating_point: str | None = None,
        calibration: str | None = None,
        batch_size: int = BATCH_SIZE,
        views: Collection[str] | None = None,
        force: bool = False,
    ) -> Prediction: ...

    @overload
    def predict(
        self,
        images: "list[Any] | tuple[Any, ...]",
        *,
        operating_point: str | None = None,
        calibration: str | None = None,
        batch_size: int = BATCH_SIZE,
        views: Collection[str] | None = None,
        force: bool = False,
    ) -> list[Prediction]: ...

    def predict(
        self,
        images: "Picture | list[Any] | tuple[Any, ...]",
        *,
        operating_point: str | None = None,
        calibration: str | None = None,
        batch_size: int = BATCH_SIZE,
        views: Collection[str] | None = None,
        force: bool = False,
    ) -> Prediction | list[Prediction]:
        """Predict one picture, or a list of them.

        Args:
            images: a file (JPEG, PNG, DICOM, ...), (H, W) uint8 pixels with bone bright, a Pillow image; or a list or
                tuple of these, which may be mixed.
            operating_point: name of the operating point that decides, such as "youden"; "" takes no decisions, None is
                what the model says (``tuning.operating_point``; none of a fresh one).
            calibration: kind of the calibration of the probabilities (temperature, platt, isotonic); "" is the plain
                sigmoid of the logits, None is what the model says (``tuning.calibration``; none of a fresh one).
            batch_size: pictures that are decoded and scored at once.
            views: of DICOM files, those that are accepted: frontal, lateral, oblique, decubitus; None is those that the
                model knows (:attr:`views`).
            force: accept DICOM files that would be refused as no such chest radiograph; the notes say why they would.

        Returns:
            A prediction for one picture, a list of them, in the same order, for a list.

        Raises:
            ConfigError: the model has no such operating point or calibration, or ``views`` is empty or has an unknown
                one.
            DataError: a picture is not what it must be; the message names it and says what to do.
            ValueError: ``batch_size`` is below 1.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        if views is not None:
            check_views(views)
        judge = _Judge.of(self, operating_point, calibration)
        single = not isinstance(images, list | tuple)
        pictures: Sequence[Any] = [images] if single else images  # type: ignore[assignment]
        predictions: list[Prediction] = []
        for start in range(0, len(pictures), batch_size):
            sources = [
                read_source(
                    picture,
                    self.preprocess,
                    "the picture" if single else f"picture {number} of the list, counting from 0,",
                    views=self.views if views is None else views,
                    force=force,
                )
                for number, picture in enumerate(pictures[start : start + batch_size], start)
            ]
            predictions += self._predict_batch(sources, judge)
        return predictions[0] if single else predictions

    def predict_resized(
        self,
        pixels: npt.NDArray[np.uint8],
        sizes: Sequence[tuple[int, int]],
        *,
        operating_point: str | None = None,
        calibration: str | None = None,
    ) -> list[Prediction]:
        """Predict pictures that :meth:`mxa.preprocess.Preprocess.resize` made, for whoever decodes elsewhere.

        Args:
            pixels: (B, 1, S, S) uint8.
            sizes: width and height of each source picture, where the regions are to be placed.
            operating_point: as for :meth:`predict`.
            calibration: as for :meth:`predict`.

        Returns:
            A prediction for each, without the name of a source.

        Raises:
            ConfigError: the model has no such operating point or calibration.
            ValueError: the pixels have another shape or type, or there is another number of sizes.
        """
        return self._judged(pixels, sizes, _Judge.of(self, operating_point, calibration))

    def _predict_batch(self, sources: Sequence[Source], judge: "_Judge") -> list[Prediction]:
        resized = [self.preprocess.resize(one.grey, name=one.name or "the picture") for one in sources]
        pixels = np.stack(resized)[:, None]
        predictions = self._judged(pixels, [source.size for source in sources], judge)
        return [
            replace(one, source=source.name, notes=one.notes + source.notes)
            for one, source in zip(predictions, sources, strict=True)
        ]

    def _judged(
        self, pixels: npt.NDArray[np.uint8], sizes: Sequence[tuple[int, int]], judge: "_Judge"
    ) -> list[Prediction]:
        logits, boxes = self.score(pixels)
        probabilities, decisions = judge(logits)
        return [
            Prediction(
                source="",
                findings=self.labels.findings,
                logits=own,
                probabilities=probabilities[i],
                calibration=judge.calibration,
                decisions=None if decisions is None else decisions[i],
                operating_point=judge.operating_point,
                regions=self.preprocess.place({block: corners[i] for block, corners in boxes.items()}, *size),
                size=size,
                model_hash=self.model_hash,
                contract_version=self.preprocess.version,
                notes=self.notes + judge.notes,
            )
            for i, (own, size) in enumerate(zip(logits, sizes, strict=True))
        ]


@dataclass(frozen=True)
class _Judge:
    """Turns logits into probabilities and decisions."""

    tuning: Tuning
    operating_point: str
    calibration: str
    notes: tuple[str, ...]

    @classmethod
    def of(cls, predictor: Predictor, operating_point: str | None, calibration: str | None) -> "_Judge":
        tuning, notes = predictor.tuning, []
        decides = tuning.operating_point if operating_point is None else operating_point
        kind = tuning.calibration if calibration is None else calibration
        if decides:
            point = tuning.point(decides)
            notes += [f"{name} has no threshold at {decides}: {why}" for name, why in point.reasons.items()]
        if kind:
            reasons = tuning.calibrated(kind).reasons
            notes += [f"{name} is not calibrated by {kind}: {why}" for name, why in reasons.items()]
        return cls(tuning, decides, kind, tuple(notes))

    def __call__(
        self, logits: npt.NDArray[np.float32]
    ) -> tuple[npt.NDArray[np.float64], list[tuple[bool | None, ...]] | None]:
        plain = sigmoid(logits)
        probabilities = self.tuning.calibrations[self.calibration].apply(logits) if self.calibration else plain
        if not self.operating_point:
            return probabilities, None
        thresholds = self.tuning.point(self.operating_point).thresholds
        return probabilities, [
            tuple(None if limit is None else p > limit for p, limit in zip(row, thresholds, strict=True))
            for row in plain.tolist()
        ]


def open_predictor(
    path: str | Path, runtime: str = "auto", device: str = "cpu", *, threads: int | None = None
) -> Predictor:
    """Open a model, saved or exported, from a path or from the Hugging Face hub.

    Args:
        path: a saved model's folder (``RUN/model``), an exported file (``.onnx``, OpenVINO's ``.xml``, ``.pt2``), a
            folder that holds either, or "owner/name" or "owner/name@revision" on the hub. What exists as a path is
            taken as a path.
        runtime: torch, onnxruntime, openvino or auto. A saved model runs in torch, ``.onnx`` in onnxruntime or
            openvino, ``.xml`` in openvino, ``.pt2`` in torch. auto takes the first of these runtimes that is
            installed; in a folder a saved model comes before exported files.
        device: "cpu"; torch also takes "cuda" and the like, onnxruntime "cuda" and openvino "gpu" where they are built
            for it.
        threads: of the runtime on the CPU; None is its own default.

    Raises:
        ConfigError: the runtime is unknown, does not run such a file, or has no such device.
        ArtifactError: there is no model, it is damaged or none of ours, or the runtime is not installed; the message
            says which, and what to do.
    """
    from mxa.deploy.locate import locate
    from mxa.deploy.runtimes import open_runtime

    found = locate(path, runtime)
    opened, metadata = open_runtime(found, device, threads)
    return Predictor(
        runtime=opened,
        labels=metadata.labels,
        preprocess=metadata.preprocess,
        tuning=metadata.tuning,
        model_hash=metadata.model_hash,
        config=metadata.config,
        notes=metadata.notes,
    )
