"""Compute the label statistics that the phantom ships, from the CheXpert training table that torchxrayvision carries.

Only sums over the 223,414 rows leave this script: fractions and correlations, no row and no path.

    python benchmarks/phantom_statistics.py [OUT.json]
"""

import argparse
import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.optimize import brentq
from scipy.stats import norm

from mxa.labels import CHEXPERT14

Floats = npt.NDArray[np.float64]
PATHOLOGIES = [f for f in CHEXPERT14.findings[1:] if f != "Support Devices"]
DRAWN = list(CHEXPERT14.findings[1:])
SHIPPED = Path(__file__).resolve().parents[1] / "src/mxa/data/phantom/chexpert_statistics.json"
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(64)


def main() -> None:
    """Write the statistics file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", nargs="?", type=Path, default=SHIPPED)
    out: Path = parser.parse_args().out
    out.write_text(json.dumps(statistics(read_table()), indent=1) + "\n", encoding="utf-8")
    print(out)


def read_table() -> pd.DataFrame:
    """Return torchxrayvision's copy of CheXpert's train.csv."""
    spec = importlib.util.find_spec("torchxrayvision")
    if spec is None or spec.origin is None:
        raise SystemExit("torchxrayvision is not installed; run: pip install 'mxa[xrv]'")
    return pd.read_csv(Path(spec.origin).parent / "data" / "chexpert_train.csv.gz")


def statistics(rows: pd.DataFrame) -> dict[str, Any]:
    """Sum the table up: studies by their views, and the labels of each kind of study."""
    rows = rows.assign(
        patient=rows["Path"].str.extract(r"(patient\d+)/")[0], study=rows["Path"].str.rsplit("/", n=1).str[0]
    )
    rows["view"] = rows["AP/PA"].where(rows["AP/PA"].isin(["AP", "PA"]), "L")
    # Frontals first, as CheXpert numbers a study's views; three laterals and other rarities are left out.
    views = rows.groupby("study")["view"].agg(lambda v: ",".join(sorted(v, key=lambda one: (one == "L", one))))
    kinds = views.value_counts(normalize=True)
    kinds = kinds[(kinds > 0.002) & (kinds.index != "L")]
    studies = rows.drop_duplicates("study").set_index("study").assign(kind=views)
    group = studies["kind"].map(label_group)
    patients = rows.drop_duplicates("patient")
    ages = patients.loc[patients["Age"] > 0, "Age"]
    return {
        "source": "CheXpert-v1.0-small train.csv, 223,414 images (Irvin et al. 2019), table shipped by torchxrayvision",
        "findings": DRAWN,
        "male": round(float((patients["Sex"] == "Male").mean()), 4),
        "age_percentiles": [float(a) for a in np.percentile(ages, np.arange(0, 101, 5))],
        "kinds": {str(k): round(float(v), 4) for k, v in (kinds / kinds.sum()).items()},
        "groups": {name: labels_of(studies[group == name]) for name in ("AP", "AP,L", "PA", "PA,L")},
    }


def label_group(kind: str) -> str:
    """Return the group whose labels a kind of study has: its frontal projection, and whether there is a lateral."""
    return ("AP" if "AP" in kind else "PA" if "PA" in kind else "") + (",L" if "L" in kind.split(",") else "")


def labels_of(studies: pd.DataFrame) -> dict[str, Any]:
    """Sum up the labels of one group of studies."""
    values = studies[DRAWN].to_numpy(dtype=np.float64)
    positive, uncertain, negative = values == 1, values == -1, values == 0
    state = np.stack([positive.mean(0), negative.mean(0), uncertain.mean(0), np.isnan(values).mean(0)], axis=1)
    pathology = [DRAWN.index(f) for f in PATHOLOGIES]
    clear = ~(positive | uncertain)[:, pathology].any(axis=1)
    device = positive[:, -1]
    no_finding = (studies["No Finding"] == 1).to_numpy()
    both = (positive.T.astype(np.float64) @ positive) / len(values)
    rest = ~(positive | uncertain)
    devices_if_clear = float(device[clear].mean())
    normal, latent = fit_copula(state, both, float(clear.mean()), devices_if_clear)
    return {
        "studies": len(values),
        "states": np.round(state, 5).tolist(),
        "both_positive": np.round(both, 5).tolist(),
        "normal": round(normal, 4),
        "correlation": np.round(latent, 3).tolist(),
        "clear": round(float(clear.mean()), 4),
        "devices_if_clear": round(devices_if_clear, 4),
        "no_finding": round(float(no_finding.mean()), 4),
        "no_finding_if_clear": {
            "without_devices": round(float(no_finding[clear & ~device].mean()), 4),
            "with_devices": round(float(no_finding[clear & device].mean()), 4),
        },
        "negative_if_not_positive": {
            "clear": share(negative & clear[:, None], rest & clear[:, None]),
            "other": share(negative & ~clear[:, None], rest & ~clear[:, None]),
        },
    }


def fit_copula(state: Floats, both: Floats, clear: float, devices: float) -> tuple[float, Floats]:
    """Split the studies into plainly normal ones and a Gaussian copula.

    A copula alone gives too few studies without any pathology, so a share of the studies is normal outright; it is
    chosen so that the table's fraction of studies with nothing positive or uncertain comes out.

    Args:
        state: (F, 4) fractions of positive, negative, uncertain, blank.
        both: (F, F) fraction with both positive.
        clear: Fraction with no pathology positive or uncertain.
        devices: P(Support Devices positive) in these.

    Returns:
        The share of plainly normal studies, and the (F, F) latent correlations of the others.
    """
    draws = np.random.default_rng(0).standard_normal((100_000, len(state)))

    def others(normal: float) -> tuple[Floats, Floats]:
        """Return the cut of what is mentioned, and the correlation, among the studies that are not plainly normal."""
        p, mentioned = state[:, 0].copy(), state[:, 0] + state[:, 2]
        p[-1], mentioned[-1] = p[-1] - normal * devices, mentioned[-1] - normal * devices
        joint = both.copy()
        joint[-1, -1] = p[-1]
        return norm.isf(mentioned / (1 - normal)), correlation(p / (1 - normal), joint / (1 - normal))

    def excess(normal: float) -> float:
        cut, latent = others(normal)
        z = draws @ np.linalg.cholesky(latent).T
        return normal + (1 - normal) * float((z < cut)[:, :-1].all(axis=1).mean()) - clear

    normal = float(brentq(excess, 0.0, 0.99 * clear, xtol=1e-3))
    return normal, others(normal)[1]


def share(part: npt.NDArray[np.bool_], whole: npt.NDArray[np.bool_]) -> list[float]:
    """Return column by column how much of the whole the part is."""
    return [round(float(v), 4) for v in part.sum(0) / np.maximum(whole.sum(0), 1)]


def correlation(p: Floats, both: Floats) -> Floats:
    """Return the (F, F) tetrachoric correlations, made positive definite."""
    size = len(p)
    out = np.eye(size)
    cut = norm.isf(p)
    for i in range(size):
        for j in range(i):
            out[i, j] = out[j, i] = _tetrachoric(cut[i], cut[j], both[i, j])
    values, vectors = np.linalg.eigh(out)
    out = (vectors * np.maximum(values, 1e-3)) @ vectors.T
    scale = np.sqrt(np.diag(out))
    fixed: Floats = out / np.outer(scale, scale)
    return fixed


def _tetrachoric(h: float, k: float, both: float) -> float:
    """Find the correlation at which two standard normals exceed h and k together with probability ``both``."""
    if _exceed(-0.95, h, k) >= both:
        return -0.95
    if _exceed(0.95, h, k) <= both:
        return 0.95
    return float(brentq(lambda rho: _exceed(rho, h, k) - both, -0.95, 0.95))


def _exceed(rho: float, h: float, k: float) -> float:
    """Return P(x > h, y > k) of a bivariate normal: its derivative by rho is the density (Plackett)."""
    r = rho / 2 * (_NODES + 1)
    density = np.exp(-(h * h - 2 * r * h * k + k * k) / (2 * (1 - r * r))) / (2 * np.pi * np.sqrt(1 - r * r))
    return float(norm.sf(h) * norm.sf(k) + rho / 2 * (_WEIGHTS @ density))


if __name__ == "__main__":
    main()
