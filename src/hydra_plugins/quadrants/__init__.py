"""Hydra takes launchers and sweepers from this package only; what they do is in quadrant_lstm.sweep."""
