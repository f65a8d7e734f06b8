"""Builds the network of the question in Keras 3, as its author wrote it; for frames, it returns logits."""

import keras
from keras import layers


def keras_network(data_format: str = "channels_last", activation: str | None = None) -> keras.Model:
    """Frames are [4, 56, 14, 1], or [4, 1, 56, 14] for data_format="channels_first"."""
    conv = {"data_format": data_format}
    return keras.Sequential(
        [
            keras.Input((4, 1, 56, 14) if data_format == "channels_first" else (4, 56, 14, 1)),
            layers.TimeDistributed(layers.Conv2D(32, 3, activation="relu", **conv)),
            layers.TimeDistributed(layers.Conv2D(32, 3, activation="relu", **conv)),
            layers.TimeDistributed(layers.MaxPooling2D(2, **conv)),
            layers.TimeDistributed(layers.Flatten(data_format="channels_last")),
            layers.Dropout(0.25),
            layers.LSTM(5),
            layers.Dense(50),
            layers.Dense(10, activation=activation),
        ]
    )
