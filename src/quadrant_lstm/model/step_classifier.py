"""Defines the base of networks that encode every step, read the features in order and classify the result."""

from jaxtyping import Float
from torch import Tensor, nn

from quadrant_lstm.model.padding import Lengths, as_argument, real_steps, repeat_last_real
from quadrant_lstm.model.protocols import Frames
from quadrant_lstm.model.recurrent import LastStep
from quadrant_lstm.model.time_distributed import TimeDistributed


class StepClassifier(nn.Module):
    """A network with these parts, which a subclass builds. It maps frames to logits.

    `lengths` are the numbers of real steps of sequences that are padded at their ends: padding is not encoded, and the
    last step is the last real one. Raises ValueError for `lengths` if the encoder shares computations between frames
    (SharedTiles, JoinedPieces).
    """

    encoder: nn.Module
    flatten: nn.Module | None
    dropout: nn.Module
    recurrent: nn.Module
    last_step: LastStep

    def classify(self, outputs: Float[Tensor, "... units"]) -> Float[Tensor, "... classes"]:
        raise NotImplementedError

    def forward(self, frames: Frames, lengths: Lengths = None) -> Float[Tensor, "batch classes"]:
        return self.classify(self.last_step(self.all_outputs(frames, lengths), lengths))

    def logits_per_step(self, frames: Frames, lengths: Lengths = None) -> Float[Tensor, "batch output_steps classes"]:
        return self.classify(self.outputs_per_step(frames, lengths))

    def outputs_per_step(self, frames: Frames, lengths: Lengths = None) -> Float[Tensor, "batch output_steps units"]:
        """A recurrent layer that also reads backwards has one output, after the last step. The outputs of padding are
        those of the last real step.
        """
        outputs = self.all_outputs(frames, lengths)
        if self.last_step.bidirectional:
            return self.last_step(outputs, lengths)[:, None]
        return outputs if lengths is None else repeat_last_real(outputs, lengths)

    def all_outputs(self, frames: Frames, lengths: Lengths = None) -> Float[Tensor, "batch output_steps units"]:
        features = self.features(frames, lengths)
        outputs, _ = self.recurrent(features, **as_argument(lengths))
        return outputs.mean((3, 4)) if outputs.ndim == 5 else outputs  # maps

    def features(self, frames: Frames, lengths: Lengths = None) -> Float[Tensor, "batch steps ..."]:
        """Returns the inputs of the recurrent layer."""
        if lengths is None:
            features = self.encoder(frames)
        elif type(self.encoder) is not TimeDistributed:
            raise ValueError(
                f"lengths: {type(self.encoder).__name__} reads sequences without padding only; use Join with "
                "shared_tiles=False."
            )
        else:
            features = self.encoder(frames, mask=real_steps(lengths, frames.shape[1]))
        return self.dropout(features if self.flatten is None else self.flatten(features))
