"""Defines the peer of the benchmark that is built with Keras."""

import os
import time

import torch

from quadrant_lstm.data.images import load_images
from quadrant_lstm.data.orderings import SequenceSpec, numbered_names, scaled, sequences

QUESTION = SequenceSpec((1, 56, 14), 4, numbered_names(10))


class KerasPeer:
    """Trains and predicts on the stacked frames of all images, [60000, 4, 56, 14, 1], as in the question."""

    def __init__(self, backend: str):
        os.environ["KERAS_BACKEND"] = backend
        from quadrant_lstm.run.keras_model import KerasSizes, build_keras_model

        data = load_images("mnist", None)
        self.frames = scaled(sequences(torch.from_numpy(data.train_images)).permute(0, 1, 3, 4, 2)).numpy()
        self.labels = data.train_labels
        self.model = build_keras_model(KerasSizes(), QUESTION, activation="softmax")
        self.model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])

    def train(self, batch: int, steps: int) -> float:
        """Uses train_on_batch; docs/speed.md compares it with fit."""
        start = time.perf_counter()
        for first in range(0, batch * steps, batch):
            self.model.train_on_batch(self.frames[first : first + batch], self.labels[first : first + batch])
        return time.perf_counter() - start

    def fit(self, batch: int, steps: int) -> float:
        start = time.perf_counter()
        self.model.fit(self.frames[: batch * steps], self.labels[: batch * steps], batch_size=batch, verbose=0)
        return time.perf_counter() - start

    def infer(self, batch: int, steps: int) -> float:
        start = time.perf_counter()
        self.model.predict(self.frames[: batch * steps], batch_size=batch, verbose=0)
        return time.perf_counter() - start
