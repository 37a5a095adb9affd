"""What a row of the trend table hides, said in words, in English and in Spanish."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from geococa.breaks import Segments
from geococa.trend_series import ZoneSeries

__all__ = ["RULE", "trend_notice"]

RULE = {
    "en": (
        "growing / shrinking: p_value <= 1 - confidence and the whole interval of the slope is above / below 0 (with "
        "standard errors: the interval from the errors alone too); stable: otherwise, if the whole interval lies within "
        "stable_percent of the mean area per year; cannot tell: all else, fewer than 4 years, or pieces of the series that "
        "clearly go opposite ways (one_line_misleads)"
    ),
    "es": (
        "growing (crece) / shrinking (decrece): p_value <= 1 - confidence y todo el intervalo de la pendiente queda por "
        "encima / por debajo de 0 (con errores estándar, también el intervalo de los errores solos); stable (estable): si no, "
        "cuando todo el intervalo queda dentro de stable_percent del área media por año; cannot tell (no se puede decir): todo "
        "lo demás, menos de 4 años, o tramos de la serie que claramente van en sentidos opuestos (one_line_misleads)"
    ),
}
"""Rule of the verdicts."""

_PHRASES = {
    "en": {
        "one": "one year is too few for a test",
        "few": "{n} years are too few for a test",
        "piece": "{first:g}-{last:g} {slope} ha a year",
        "misleads": "one line misleads: {pieces}",
        "bends": "the slope changes: {pieces}",
        "correlated": (
            "independent years would give p = {independent:.2g}; with years that resemble their neighbours p = {p:.2g}"
        ),
        "vintages": (
            "one trend across different vintages or adjustments ({vintages}): a step between them is not a change on the ground"
        ),
    },
    "es": {
        "one": "un solo año es muy poco para una prueba",
        "few": "{n} años son muy pocos para una prueba",
        "piece": "{first:g}-{last:g} {slope} ha por año",
        "misleads": "una sola línea engaña: {pieces}",
        "bends": "la pendiente cambia: {pieces}",
        "correlated": (
            "años independientes darían p = {independent:.2g}; con años que se parecen a sus vecinos, p = {p:.2g}"
        ),
        "vintages": (
            "una sola tendencia a través de ediciones o ajustes distintos ({vintages}): un escalón entre ellos no es un cambio "
            "en el terreno"
        ),
    },
}


def trend_notice(
    one: ZoneSeries, bent: Segments | None, row: Mapping[str, Any], confidence: float, language: str = "en"
) -> str:
    """Say in words what the numbers of one line hide; empty where nothing is to be said.

    Parameters
    ----------
    one : ZoneSeries
        The series.
    bent : Segments or None
        Its pieces, where bends were looked for.
    row : mapping
        Columns of the trend table.
    confidence : float
        Level of the intervals.
    language : {"en", "es"}
        Language of the notice.
    """
    say = _PHRASES[language]
    parts = []
    if one.years.size < 4:
        parts.append(say["one" if one.years.size == 1 else "few"].format(n=one.years.size))
    if bent and bent.breaks:
        ends = [float(one.years[0]), *bent.breaks, float(one.years[-1])]
        write = _WRITERS[language]
        pieces = "; ".join(
            say["piece"].format(first=ends[k], last=ends[k + 1], slope=write(slope))
            for k, slope in enumerate(bent.slopes)
        )
        parts.append(say["misleads" if bent.opposed else "bends"].format(pieces=pieces))
    if row["p_value_independent"] <= 1 - confidence < row["p_value"]:
        parts.append(say["correlated"].format(independent=row["p_value_independent"], p=row["p_value"]))
    if one.vintages:
        parts.append(say["vintages"].format(vintages=", ".join(one.vintages)))
    return ". ".join(parts)


def _english(slope: float) -> str:
    return f"{slope:+,.0f}" if abs(slope) >= 10 else f"{slope:+,.2g}"


def _spanish(slope: float) -> str:
    # a narrow space between thousands: a comma would read as a decimal mark
    return _english(slope).replace(",", "\u202f")


_WRITERS: dict[str, Callable[[float], str]] = {"en": _english, "es": _spanish}
