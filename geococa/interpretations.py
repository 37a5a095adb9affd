"""Labels of several interpreters: read them back, see how far they agree, settle where they do not."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from geococa.errors import AccuracyError, InputRefused
from geococa.survey_estimators import wilson_interval

if TYPE_CHECKING:
    from geopandas import GeoDataFrame

__all__ = ["agreement", "arbitrate", "read_interpretation"]

_IDS = ("id", "ID", "sample_id", "sampleid", "pl_sampleid", "point", "plotid", "plot_id", "pl_plotid")
"""Names of the column that numbers a sample, by preference: our own and AcATaMa's, then Collect Earth Online's and Collect Earth's."""
_LABELS = ("class", "Label", "label", "land_cover", "class_name", "land_use_category")
_KNOWN = frozenset({
    *_IDS, "year", "lon", "lat", "longitude", "latitude", "x", "y", "email", "flagged", "flagged_reason", "confidence", "notes",
    "interpreter", "collection_time", "analysis_duration", "imagery_title", "imagery_attributions", "sample_geom", "plot_geom",
    "sample_internal_id", "geometry", "stratum", "stratum_area_ha", "inclusion_probability", "row", "col", "label id",
    "is labeled as", "in thematic map as", "match", "common_securewatch_date", "total_securewatch_dates",
})  # fmt: skip
"""Columns of label files that are no answer to a question."""


def read_interpretation(
    path: str | os.PathLike[str],
    samples: pd.DataFrame,
    *,
    class_column: str | None = None,
    id_column: str | None = None,
    classes: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """Read what one interpreter answered, and check it against the sample that was drawn.

    Reads the CSV of a response sheet, a GeoPackage labelled in QGIS or saved by AcATaMa (``ID``, ``Label``), and the sample CSV of
    Collect Earth Online or of Collect Earth (``sampleid`` or ``plotid``, and the question's column).

    Parameters
    ----------
    path : path
        CSV, or a vector file that GeoPandas reads.
    samples : pandas.DataFrame
        The sample as drawn (`geococa.sample_design`), with ``id`` (or ``point``) and perhaps ``year``.
    class_column : str, optional
        Column of the answer; recognised where not given: ``class``, ``Label``, ..., or the only column that nobody else claims.
    id_column : str, optional
        Column of the file that numbers the samples; recognised where not given.
    classes : mapping of str to str, optional
        Class name for each answer, where they differ ("Coca (confident)" is "coca"). Blanks become underscores.

    Returns
    -------
    pandas.DataFrame
        ``id``, ``year`` (where the samples have one), ``class`` (missing = not labelled) and, where given, ``confidence``,
        ``notes``, ``interpreter``: one row for each of ``samples``, in their order.

    Raises
    ------
    InputRefused
        The file can't be read, has no such columns, holds an id or a year that was not drawn, or answers one twice.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import pandas as pd
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "ceo.csv"
    >>> pd.DataFrame({"plotid": [1, 2], "Land cover": ["coca", "forest"]}).to_csv(path, index=False)
    >>> read_interpretation(path, pd.DataFrame({"id": ["1", "2"]}), id_column="plotid", class_column="Land cover")["class"].tolist()
    ['coca', 'forest']
    """
    source = Path(path)
    table = _read(source)
    name = _column(table, id_column, _IDS, source, "numbers the samples")
    answer = _answer(table, class_column, source)
    mine = "id" if "id" in samples.columns else "point"
    if mine not in samples.columns:
        raise InputRefused(f"the samples have neither id nor point, only {', '.join(map(str, samples.columns))}")
    keys = ["id", *(["year"] if "year" in samples.columns and "year" in table.columns else [])]
    drawn = pd.DataFrame({"id": _plain(samples[mine])}, index=range(len(samples)))
    if "year" in samples.columns:
        drawn["year"] = samples["year"].to_numpy()
    if keys == ["id"] and drawn["id"].duplicated().any():
        raise InputRefused(
            f"{source} has no year, but samples are labelled for several years; add the year of each answer"
        )
    labels = table[answer].astype("str").str.strip()
    empty = table[answer].isna() | (labels == "")
    labels = labels.replace({str(key): str(value) for key, value in (classes or {}).items()})
    found = pd.DataFrame(
        {"id": _plain(table[name]), "class": labels.str.replace(r"\s+", "_", regex=True).where(~empty)}
    )
    if "year" in keys:
        found["year"] = pd.to_numeric(table["year"], errors="coerce").to_numpy()
    for extra in ("confidence", "notes", "interpreter"):
        if extra in table.columns:
            found[extra] = table[extra].to_numpy()
    if found.duplicated(keys).any():
        twice = found.loc[found.duplicated(keys), "id"].iloc[0]
        raise InputRefused(f"{source} answers sample {twice} more than once; keep one answer")
    strange = sorted(set(found["id"]) - set(drawn["id"]))
    if strange:
        raise InputRefused(
            f"{source} has the samples {', '.join(strange[:5])}, which were not drawn; is it of another sample, or is the "
            "number in another column (id_column=)?"
        )
    _check_years(found, drawn, keys, source)
    return drawn.merge(found, on=keys, how="left")


def _check_years(found: pd.DataFrame, drawn: pd.DataFrame, keys: list[str], source: Path) -> None:
    """Refuse answers for years that were not asked, which would be lost without a word."""
    if "year" not in keys:
        return
    answered = found[found["class"].notna()]
    asked = pd.MultiIndex.from_arrays([drawn["id"], pd.to_numeric(drawn["year"], errors="coerce").astype(float)])
    given = pd.MultiIndex.from_arrays([answered["id"], answered["year"].astype(float)])
    lost = answered[~given.isin(asked)]
    if len(lost):
        years = ", ".join(
            sorted({"no year" if np.isnan(one) else f"{one:g}" for one in lost["year"].astype(float)})[:5]
        )
        raise InputRefused(
            f"{source} answers {len(lost)} samples for {years}, which were not asked for these samples; is it of another year's "
            "sheet? correct the column year, or leave it out where every sample is of one year"
        )


def _read(source: Path) -> pd.DataFrame:
    if not source.is_file():
        raise InputRefused(f"no labels at {source}: expected a CSV or a vector file")
    try:
        if source.suffix.lower() == ".csv":
            table = pd.read_csv(source, encoding="utf-8-sig")
            # spreadsheets save with semicolons where the comma is the decimal sign
            one = len(table.columns) == 1 and ";" in str(table.columns[0])
            return pd.read_csv(source, encoding="utf-8-sig", sep=";") if one else table
        import geopandas

        return pd.DataFrame(geopandas.read_file(source).drop(columns="geometry", errors="ignore"))
    except Exception as error:  # the readers raise many kinds for a damaged file
        raise InputRefused(f"{source} can't be read as labels: {error}") from error


def _column(table: pd.DataFrame, given: str | None, known: Sequence[str], source: Path, what: str) -> str:
    if given is not None and given not in table.columns:
        raise InputRefused(f"{source} has no column {given!r}, only {', '.join(map(str, table.columns))}")
    found = given or next((name for name in known if name in table.columns), None)
    if found is None:
        raise InputRefused(f"{source} has no column that {what}; it has {', '.join(map(str, table.columns))}")
    return str(found)


def _answer(table: pd.DataFrame, given: str | None, source: Path) -> str:
    """Column of the answer: a usual name, or the only one that is left."""
    if given is not None or any(name in table.columns for name in _LABELS):
        return _column(table, given, _LABELS, source, "holds the class")
    left = [str(name) for name in table.columns if str(name).lower() not in _KNOWN and str(name) not in _KNOWN]
    left = [name for name in left if not name.lower().startswith(("pl_", "smpl_", "unnamed"))]
    if len(left) != 1:
        raise InputRefused(
            f"{source}: which column holds the class? candidates are {', '.join(left) or 'none'}; name it with class_column="
        )
    return left[0]


def _plain(numbers: pd.Series[Any]) -> list[str]:
    """Ids as text, with 7.0 as 7."""
    return [
        str(int(one)) if isinstance(one, float) and one.is_integer() else str(one).strip() for one in numbers.tolist()
    ]


def agreement(labels: Mapping[str, pd.DataFrame], *, stratum_weight: Mapping[str, float] | None = None) -> pd.DataFrame:
    """See how far interpreters agree, as a whole and for each class.

    Parameters
    ----------
    labels : mapping of str to pandas.DataFrame
        Name of each interpreter and what he answered (`read_interpretation`), all for the same samples; samples that fewer than
        two labelled are left out.
    stratum_weight : mapping of str to float, optional
        Weight of each sample by its ``id``, such as the hectares that it stands for; without it every sample counts alike, and a
        sample that was drawn where coca is likely says little of the rest.

    Returns
    -------
    pandas.DataFrame
        Index ``class``, the row ``all`` first: ``agreement`` (share of the pairs of answers that agree; for a class, the share of
        its answers that another interpreter shares), ``ci_low, ci_high`` (Wilson), ``kappa`` (Cohen's with two
        interpreters, Fleiss' with more; for a class, that class against the rest), ``n_answers``. ``attrs``: ``n`` (samples with
        two or more answers), ``interpreters``, ``kappa`` ("Cohen" or "Fleiss"), ``caution``.

    Raises
    ------
    AccuracyError
        There are fewer than two interpreters, or no sample that two of them labelled.

    Notes
    -----
    Kappa falls where a class is rare though interpreters agree, and depends on how the sample was drawn. It is no measure of a
    map's accuracy, and no interval of hectares should rest on it (Pontius and Millones 2011).

    References
    ----------
    Cohen, J. (1960), Educational and Psychological Measurement 20, 37-46. Fleiss, J. L. (1971), Psychological Bulletin 76, 378-382.
    Cicchetti, D. V. and Feinstein, A. R. (1990), High agreement but low kappa, Journal of Clinical Epidemiology 43, 551-558.
    Pontius, R. G. and Millones, M. (2011), Death to kappa, International Journal of Remote Sensing 32, 4407-4429.

    Examples
    --------
    >>> ana = pd.DataFrame({"id": ["1", "2", "3", "4"], "class": ["coca", "coca", "forest", "forest"]})
    >>> luz = pd.DataFrame({"id": ["1", "2", "3", "4"], "class": ["coca", "forest", "forest", "forest"]})
    >>> agreement({"Ana": ana, "Luz": luz})[["agreement", "kappa"]].round(3).values.tolist()
    [[0.75, 0.5], [0.667, 0.5], [0.8, 0.5]]
    """
    answers, names = _answers(labels)
    counted = answers.notna().sum(axis=1) >= 2
    if not counted.any():
        raise AccuracyError("no sample was labelled by two interpreters, so nothing can be said of their agreement")
    answers = answers[counted]
    ids = answers.index.get_level_values("id")
    weight = np.array([float((stratum_weight or {}).get(one, 1.0)) for one in ids])
    classes = sorted({str(one) for one in answers.to_numpy().ravel() if isinstance(one, str)})
    counts = np.stack([(answers == name).sum(axis=1).to_numpy(dtype=float) for name in classes], axis=1)
    size = counts.sum(axis=1)
    pairs = counts * (counts - 1) / (size * (size - 1))[:, None]
    rows = [
        _agreement_row(
            pairs.sum(axis=1), np.ones(len(counts)), weight, _kappa(answers, counts, weight, names), counts.sum()
        )
    ]
    for k, name in enumerate(classes):
        pair = counts[:, [k]], size[:, None] - counts[:, [k]]
        one = answers == name
        kappa = _kappa(one.where(answers.notna()), np.concatenate(pair, axis=1), weight, names)
        rows.append(_agreement_row(pairs[:, k], counts[:, k] / size, weight, kappa, counts[:, k].sum()))
    out = pd.DataFrame(rows, index=pd.Index(["all", *classes], name="class"))
    out.attrs.update({
        "n": len(answers), "interpreters": list(names), "kappa": "Cohen" if len(names) == 2 else "Fleiss",
        "caution": "kappa falls for rare classes and depends on the sample's design; it is no accuracy of the map",
    })  # fmt: skip
    return out


def _answers(labels: Mapping[str, pd.DataFrame]) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Samples by interpreters, missing where one did not label."""
    if len(labels) < 2:
        raise AccuracyError(f"agreement needs two or more interpreters, got {len(labels)}")
    columns = {}
    for name, table in labels.items():
        keys = ["id", *(["year"] if "year" in table.columns else [])]
        if not {"id", "class"} <= set(table.columns):
            raise InputRefused(f"the labels of {name} lack id or class; read them with read_interpretation")
        one = table.set_index(keys)["class"]
        if one.index.duplicated().any():
            raise InputRefused(f"{name} labelled a sample twice; keep one answer")
        columns[str(name)] = one.astype(object)
    frame = pd.DataFrame(columns)
    frame.index = frame.index.set_names("id") if frame.index.nlevels == 1 else frame.index
    return frame.where(frame.notna(), None).astype(object), tuple(columns)


def _agreement_row(
    above: np.ndarray, below: np.ndarray, weight: np.ndarray, kappa: float, n: float
) -> dict[str, float]:
    whole = float(weight @ below)
    share = float(weight @ above) / whole if whole > 0 else np.nan
    pull = weight * (above - share * below)
    se = float(np.sqrt((pull**2).sum() * len(pull) / max(len(pull) - 1, 1))) / whole if whole > 0 else np.nan
    low, high = wilson_interval(share, se, int((below > 0).sum()), 0.95)
    return {"agreement": share, "ci_low": low, "ci_high": high, "kappa": kappa, "n_answers": int(n)}


def _kappa(answers: pd.DataFrame, counts: np.ndarray, weight: np.ndarray, names: Sequence[str]) -> float:
    """Agreement beyond what the interpreters' own shares (Cohen), or their common shares (Fleiss), would give."""
    size = counts.sum(axis=1)
    heavy = weight / weight.sum()
    observed = float(heavy @ (counts * (counts - 1) / (size * (size - 1))[:, None]).sum(axis=1))
    if len(names) == 2:
        kinds = sorted({str(one) for one in answers.to_numpy().ravel() if one is not None})
        shares = [
            np.array([float(heavy @ (answers[name].astype(str) == kind).to_numpy(dtype=float)) for kind in kinds])
            for name in names
        ]
        expected = float(shares[0] @ shares[1])
    else:
        share = heavy @ (counts / size[:, None])
        expected = float(share @ share)
    return (observed - expected) / (1 - expected) if expected < 1 else np.nan


def arbitrate(
    samples: GeoDataFrame,
    labels: Mapping[str, pd.DataFrame],
    *,
    arbiter: pd.DataFrame | None = None,
    rule: str = "unanimous",
) -> GeoDataFrame:
    """Settle the labels of several interpreters.

    Parameters
    ----------
    samples : geopandas.GeoDataFrame
        The sample as drawn, with ``id`` (or ``point``) and perhaps ``year``.
    labels : mapping of str to pandas.DataFrame
        What each interpreter answered.
    arbiter : pandas.DataFrame, optional
        Answers to the samples in dispute, by somebody who saw the others' labels or none; they are final.
    rule : {"unanimous", "majority"}
        What settles a sample without the arbiter: all who answered agree; or more than half of them do.

    Returns
    -------
    geopandas.GeoDataFrame
        ``samples`` with ``class`` (missing where still in dispute or not labelled), ``settled_by`` ("agreement", "majority",
        "arbiter", "dispute", "one interpreter", "not labelled") and one column ``class_<name>`` an interpreter. Rows in dispute
        are those to show to the arbiter. A sample with rows without class is no probability sample of the whole: `geococa.read_samples`
        refuses it unless told otherwise.

    Raises
    ------
    InputRefused
        ``rule`` is unknown, or tables have no ids.

    Examples
    --------
    >>> import geopandas, shapely
    >>> import pandas as pd
    >>> points = geopandas.GeoDataFrame({"id": ["1", "2"]}, geometry=[shapely.Point(0, 0)] * 2, crs="EPSG:4326")
    >>> ana = pd.DataFrame({"id": ["1", "2"], "class": ["coca", "forest"]})
    >>> luz = pd.DataFrame({"id": ["1", "2"], "class": ["coca", "coca"]})
    >>> arbitrate(points, {"ana": ana, "luz": luz})["settled_by"].tolist()
    ['agreement', 'dispute']
    """
    if rule not in ("unanimous", "majority"):
        raise InputRefused(f"rule must be 'unanimous' or 'majority', got {rule!r}")
    answers, names = _answers(labels) if len(labels) > 1 else _answers({**labels, "_nobody": _blank(labels)})
    mine = "id" if "id" in samples.columns else "point"
    keys: Any = _plain(samples[mine])
    if answers.index.nlevels > 1:
        keys = pd.MultiIndex.from_arrays([keys, samples["year"].to_numpy()])
    rows = answers.reindex(keys)
    final = None
    if arbiter is not None:
        given = _answers({"arbiter": arbiter, "_nobody": _blank({"arbiter": arbiter})})[0]
        final = given["arbiter"].reindex(keys).to_numpy(dtype=object)
    settled = [_settle([a for a in row if isinstance(a, str)], rule) for row in rows.to_numpy(dtype=object)]
    out = samples.copy()
    chosen = [label for label, _ in settled]
    how = [reason for _, reason in settled]
    if final is not None:
        for k, label in enumerate(final):
            if isinstance(label, str):
                chosen[k], how[k] = label, "arbiter"
    out["class"] = pd.array(chosen, dtype="str")
    out["settled_by"] = how
    for name in names:
        if name != "_nobody":
            out[f"class_{name}"] = pd.array([a if isinstance(a, str) else None for a in rows[name]], dtype="str")
    return out


def _blank(labels: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    table = next(iter(labels.values()), None)
    if table is None:
        raise AccuracyError("there are no labels to settle")
    return table.assign(**{"class": None})


def _settle(answers: list[str], rule: str) -> tuple[str | None, str]:
    if not answers:
        return None, "not labelled"
    kinds, counts = np.unique(answers, return_counts=True)
    if len(answers) == 1:
        return answers[0], "one interpreter"
    if len(kinds) == 1:
        return answers[0], "agreement"
    if rule == "majority" and 2 * counts.max() > len(answers):
        return str(kinds[counts.argmax()]), "majority"
    return None, "dispute"
