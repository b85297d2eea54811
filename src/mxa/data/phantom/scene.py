"""The state of one image while it is drawn: thickness maps that anatomy fills and findings change."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from mxa.data.phantom.canvas import Canvas, Fine

Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]


@dataclass
class Scene:
    """Thickness maps of one image; (h, w) is the canvas's half grid.

    Attributes:
        canvas: The pixel grids.
        body: (h, w), soft tissue from front to back as if there were no air, cm.
        air: (h, w), air in the lungs along the beam, cm.
        open: (h, w) in [0, 1], how much of the lung still shows its vessels; 0 behind fluid or in a pneumothorax.
        lungs: Areas of the right and the left lung, (h, w) in [0, 1]; in the lateral view they overlap.
        heart: (h, w) in [0, 1], the heart's area.
        bone: Full-grid layer of ribs, spine and clavicles.
        extra_bone: A second such layer, so that overlapping bones add up.
        vessels: Full-grid layer of lung vessels.
        lines: Full-grid layer of thin soft-tissue lines (pleura, fissures, septa).
        metal: Full-grid layer of devices and markers.
        masks: (h, w) bool by finding: where its sign is.
    """

    canvas: Canvas
    body: Floats
    air: Floats
    open: Floats
    lungs: list[Floats]
    heart: Floats
    bone: Fine
    extra_bone: Fine
    vessels: Fine
    lines: Fine
    metal: Fine
    masks: dict[str, Bools] = field(default_factory=dict)

    def fill(self, where: Floats) -> None:
        """Replace air by fluid; ``where`` (h, w) in [0, 1] says how much of it."""
        keep = 1 - where
        self.air *= keep
        self.open *= keep

    def mark(self, finding: str, where: Bools) -> None:
        """Add (h, w) bool to a finding's mask."""
        old = self.masks.get(finding)
        self.masks[finding] = where if old is None else old | where
