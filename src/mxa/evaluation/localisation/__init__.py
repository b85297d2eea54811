"""How well the boxes and maps of a model meet the marked findings, against baselines that never looked at the image.

Modules: ``located`` (what is scored), ``measures`` (the measures of one case), ``baselines``, ``scores`` (all of it),
``summary`` (means with intervals), ``report`` (tables and the figure), ``geometry`` (boxes and masks on a grid).
"""

from mxa.evaluation.localisation.baselines import Trained, learn
from mxa.evaluation.localisation.geometry import GRID
from mxa.evaluation.localisation.located import Located
from mxa.evaluation.localisation.scores import Localisation, choose_stage, score

__all__ = ["GRID", "Localisation", "Located", "Trained", "choose_stage", "learn", "score"]
