"""Confidence that can be believed: curves and where they come from."""

from itertools import pairwise

import pytest

from mediaserver.decoder import catalogue
from mediaserver.decoder.confidence import CALIBRATIONS, RAW, Curve, calibration_of, text_confidence

CURVES = [curve for model in CALIBRATIONS.values() for curve in (model.final, model.interim) if curve.knots]


def test_a_curve_is_straight_between_its_knots_and_flat_beyond_them() -> None:
    curve = Curve(((0.2, 0.3), (0.6, 0.7), (0.9, 0.95)))
    assert [curve(p) for p in (0.0, 0.2, 0.4, 0.6, 0.9, 1.0)] == pytest.approx([0.3, 0.3, 0.5, 0.7, 0.95, 0.95])


def test_no_knots_are_the_identity_within_bounds() -> None:
    assert [Curve()(p) for p in (-0.1, 0.0, 0.3, 1.0, 1.0001)] == [0.0, 0.0, 0.3, 1.0, 1.0]


@pytest.mark.parametrize(
    "knots",
    [
        ((0.5, 0.5), (0.4, 0.6)),
        ((0.5, 0.5), (0.5, 0.6)),
        ((0.2, 0.5), (0.4, 0.4)),
        ((0.2, -0.1),),
        ((0.2, 0.5), (1.2, 0.6)),
        ((float("nan"), 0.5),),
    ],
)
def test_what_is_no_rising_curve_is_refused(knots: tuple[tuple[float, float], ...]) -> None:
    with pytest.raises(ValueError, match="knots"):
        Curve(knots)


@pytest.mark.parametrize("curve", CURVES)
def test_shipped_curves_keep_the_order_of_words_and_stay_within_bounds(curve: Curve) -> None:
    made = [curve(step / 200) for step in range(201)]
    assert all(before <= after for before, after in pairwise(made))
    assert 0.0 < made[0] < 0.5 < 0.9 < made[-1] < 1.0


def test_every_curve_belongs_to_a_catalogued_model() -> None:
    assert "tiny.en" in CALIBRATIONS
    assert set(CALIBRATIONS) <= {model.name for model in catalogue.MODELS}


def test_a_model_has_its_curve_by_either_name() -> None:
    tiny = catalogue.find("tiny.en")
    assert tiny.hub is not None
    assert calibration_of("tiny.en") is calibration_of(tiny.hub.repository) is CALIBRATIONS["tiny.en"]


def test_a_model_that_nobody_has_measured_keeps_its_own_probabilities() -> None:
    assert calibration_of("/models/mine") is RAW
    assert calibration_of("/models/mine").final(0.37) == 0.37


def test_a_texts_confidence_is_the_share_of_words_to_be_expected_right() -> None:
    assert text_confidence([0.4, 0.8]) == pytest.approx(0.6)
    assert text_confidence([]) == 0.0
