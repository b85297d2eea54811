"""The phantom: procedural chest radiographs in CheXpert's own layout, drawn with NumPy, SciPy and Pillow.

Modules, in the order of the work: ``statistics`` (labels), ``plan`` (patients, studies, splits), ``anatomy`` (body
and pose), ``frontal`` and ``lateral`` (the normal chest), ``frontal_signs``, ``lateral_signs`` and ``devices``
(findings), ``render`` (grey values), ``image`` (all of these for one image), ``dataset`` (files).
"""

from mxa.data.phantom.dataset import make_phantom

__all__ = ["make_phantom"]
