"""A bot and its tests, to copy: `pytest examples/testing_a_bot`."""
