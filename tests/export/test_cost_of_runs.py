"""A run costs what its bundle does, at any size."""

from pathlib import Path

import pytest

from atrous.evaluation.cost import cost_of

pytestmark = pytest.mark.slow  # for the export that they share


@pytest.mark.parametrize("size", [(50, 70), (64, 33)])
def test_a_run_and_its_bundle_cost_the_same(
    run_folder: Path, float_bundle: Path, size: tuple[int, int]
) -> None:
    cost = cost_of(run_folder, size)
    assert cost.multiply_adds == cost_of(float_bundle, size).multiply_adds > 1e6
