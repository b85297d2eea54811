"""The interface's types, of which OpenAPI's description is made."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Box = tuple[float, float, float, float]
View = Literal["frontal", "lateral", "oblique", "decubitus"]


class _Body(BaseModel):
    model_config = ConfigDict(protected_namespaces=())  # model_hash is a name of ours


class Ask(BaseModel):
    """What to predict, and how."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    operating_point: Annotated[
        str | None,
        Field(description="Name of the operating point that decides; empty takes no decisions, absent is the model's."),
    ] = None
    calibration: Annotated[
        str | None,
        Field(description="Kind of the probabilities' calibration; empty is the plain sigmoid, absent is the model's."),
    ] = None
    views: Annotated[
        tuple[View, ...] | None,
        Field(description="Of DICOM files, the views that are accepted; absent are those that the model knows."),
    ] = None
    force: Annotated[
        bool,
        Field(description="Accept DICOM files that would be refused as no such chest radiograph; the notes say why."),
    ] = False
    view: Annotated[bool, Field(description="Return the picture for a browser as well.")] = False
    maps: Annotated[bool, Field(description="Return class-activation maps as well, of a model that has them.")] = False


class MapsBody(_Body):
    """Class-activation maps: each finding's logit, taken apart by place."""

    cells: dict[str, list[list[float]]] = Field(
        description="By finding the rows of its map, in logits; their mean is the finding's logit."
    )
    window: Box = Field(description="Left, top, right, bottom of what the maps cover, in pixels of the picture.")


class PredictionBody(_Body):
    """What the model says of one picture."""

    source: str = Field(description="Always empty: names of uploads are not kept.")
    logits: dict[str, float]
    probabilities: dict[str, float]
    calibration: str = Field(description='Of the probabilities; "" for the plain sigmoid.')
    decisions: dict[str, bool | None] | None = Field(
        description="By finding, taken on the uncalibrated probabilities; null where no threshold could be chosen."
    )
    operating_point: str = Field(description='That decided; "" for none.')
    regions: dict[str, Box] = Field(description="Of each MXA block x1, y1, x2, y2 in pixels of the picture.")
    size: tuple[int, int] = Field(description="Width and height of the picture in pixels.")
    model_hash: str
    contract_version: int
    notes: list[str] = Field(description="What a reader must know besides.")
    view: str | None = Field(None, description="The picture in 8-bit grey as a data URL, where it was asked for.")
    maps: MapsBody | None = Field(None, description="Where they were asked for.")


class OperatingPointBody(_Body):
    """Thresholds, for uncalibrated probabilities."""

    thresholds: dict[str, float | None]
    reasons: dict[str, str] = Field(description="By finding without a threshold, why.")


class LimitsBody(_Body):
    """Of an upload."""

    bytes: int
    pixels: int
    upload_seconds: float
    predict_seconds: float


class ModelBody(_Body):
    """The model that is served."""

    architecture: str
    parameters: int | None
    findings: list[str]
    codes: list[str] = Field(description="Of the findings.")
    preprocess: dict[str, Any] = Field(description="The preprocessing contract.")
    operating_points: dict[str, OperatingPointBody]
    calibrations: dict[str, dict[str, str]] = Field(
        description="By kind the findings that it leaves uncalibrated, and why."
    )
    operating_point: str = Field(description='That decides where nothing else is asked for; "" for none.')
    calibration: str = Field(description='Of the probabilities where nothing else is asked for; "" for none.')
    views: list[str] = Field(description="That the model knows.")
    fitted_on: dict[str, Any] = Field(description="The data that operating points and calibrations were chosen on.")
    blocks: list[str] = Field(description="MXA blocks, whose boxes a prediction has.")
    maps_missing: str = Field(description="Why there are no class-activation maps; empty where there are.")
    runtime: str
    model_hash: str
    version: str = Field(description="Of mxa.")
    notes: list[str]
    card: str = Field(description="The model card, in Markdown.")
    limits: LimitsBody
    disclaimer: str


class HealthBody(_Body):
    """Whether the server can predict."""

    live: bool
    ready: bool


class Problem(_Body):
    """Why there is no result."""

    detail: str
