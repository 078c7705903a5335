import math
from io import BytesIO

import matplotlib
import numpy as np
import pytest
from matplotlib.image import imread

from thermo_monitor.sinks.heatmap import heat_map


def pixels(values, low=0.0, high=1.0):
    """What an independent decoder makes of it: [height, width, 3] from 0 to 1."""
    png, width, height = heat_map(np.array(values), low, high)
    image = imread(BytesIO(png), format="png")[..., :3]
    assert image.shape[:2] == (height, width)
    return image


def test_cells_have_the_colours_of_viridis():
    shares = np.linspace(0, 1, 12)
    image, cell = pixels([shares]), 40
    expected = matplotlib.colormaps["viridis"](shares)[:, :3]
    np.testing.assert_allclose(image[cell // 2, cell // 2 :: cell], expected, atol=0.025)


def test_a_cell_has_one_colour_and_rows_go_down():
    image = pixels([[0.0, 1.0], [1.0, 1.0]])
    assert image.shape == (80, 80, 3)
    assert np.ptp(image[:40, :40], axis=(0, 1)).max() == 0
    assert not np.allclose(image[0, 0], image[79, 0])
    np.testing.assert_array_equal(image[79, 0], image[0, 79])


def test_a_missing_cell_is_grey_and_striped_and_a_low_one_is_not():
    image = pixels([[math.nan, 0.0]])
    missing, low = image[:, :40], image[:, 40:]
    assert np.ptp(missing, axis=2).max() == 0  # grey: red, green and blue are equal
    assert len(np.unique(missing)) == 2
    assert np.ptp(low, axis=2).min() > 0.1


@pytest.mark.parametrize(
    ("shape", "size"), [((1, 1), (40, 40)), ((4, 12), (160, 480)), ((48, 64), (336, 448)), ((200, 200), (800, 800))]
)
def test_cells_are_squares_of_a_sensible_size(shape, size):
    assert pixels(np.zeros(shape)).shape[:2] == size


def test_values_outside_the_limits_take_the_last_colour_and_equal_limits_the_middle():
    image = pixels([[-9.0, 0.0, 1.0, math.inf]])
    np.testing.assert_array_equal(image[0, 0], image[0, 40])
    np.testing.assert_array_equal(image[0, 80], image[0, 120])
    middle = pixels([[3.0, math.nan]], 3.0, 3.0)[0, 0]
    np.testing.assert_allclose(middle, matplotlib.colormaps["viridis"](0.5)[:3], atol=0.025)


def test_it_is_small():
    assert len(heat_map(np.random.default_rng(0).random((48, 64)), 0, 1)[0]) < 30_000
