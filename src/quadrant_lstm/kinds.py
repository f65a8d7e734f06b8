"""Defines the kinds of values a config may hold. A kind is a type, its range, and its wording in error messages.

They annotate the arguments of constructors, with which config/check.py compares a config.
"""

import re
import types
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen, Predicate

Count = Annotated[int, Ge(1), "a whole number of at least 1"]
AtLeastTwo = Annotated[int, Ge(2), "a whole number of at least 2"]
Natural = Annotated[int, Ge(0), Lt(2**32), "a whole number from 0 to 4294967295"]
FrameRate = Annotated[float, Gt(0), Le(1000), "a number above 0, up to 1000"]  # times are compared by the millisecond
Positive = Annotated[float, Gt(0), Lt(float("inf")), "a number above 0"]
NonNegative = Annotated[float, Ge(0), Lt(float("inf")), "a number of at least 0"]
BelowOne = Annotated[float, Ge(0), Lt(1), "a number in [0, 1)"]
AtMostOne = Annotated[float, Ge(0), Le(1), "a number from 0 to 1"]
Share = Annotated[float, Gt(0), Lt(1), "a number above 0 and below 1"]
Fraction = Annotated[float, Gt(0), Le(1), "a fraction above 0.0, up to 1.0"]
# At 1,000, the rounding of float32 changes the divergence of the probabilities by a tenth.
Temperature = Annotated[float, Ge(0.01), Le(100), "a number from 0.01 to 100"]
Betas = Annotated[list[BelowOne], MinLen(2), MaxLen(2), "a list of two numbers in [0, 1), such as [0.9,0.999]"]
IS_DURATION = Predicate(lambda text: bool(re.fullmatch(r"\d*\.?\d+s", text)) and float(text[:-1]) > 0)
Seconds = Annotated[str, IS_DURATION, "seconds above 0, such as 2s or 0.5s"]
Counts = Annotated[Sequence[Count], MinLen(1), "a list of whole numbers of at least 1, such as [32,32]"]
Features = Annotated[Sequence[Count], "a list of features, counted from 1, such as [1,5]"]
Blocks = Annotated[Sequence[Counts], MinLen(1), "a list of lists of whole numbers, such as [[16,16],[32]]"]
Grid = Annotated[Sequence[Count], MinLen(2), MaxLen(2), "two whole numbers of at least 1, rows and columns: [2,2]"]
Size = Annotated[Sequence[Count], MinLen(2), MaxLen(2), "a list of two whole numbers of at least 1, such as [64,64]"]
Orderings = Sequence[Sequence[int]]  # permutations of the pieces of a grid
# data/orderings.py checks each
OrderingsOrNames = Annotated[Sequence[Sequence[int] | str], MinLen(1), "a list of permutations or names of orderings"]
Dataset = Literal["mnist", "idx", "MNIST", "FashionMNIST", "KMNIST"]
Keep = Literal["best", "last"]  # an epoch
Monitor = Literal["val/accuracy", "val/balanced_accuracy", "val/macro_f1", "val/top5_accuracy", "val/loss"]
Accelerator = Literal["auto", "cpu", "gpu", "cuda", "mps"]
Precision = Literal["auto", "32-true", "16-mixed", "bf16-mixed", "16-true", "bf16-true", "64-true"]
# run/train.py starts the processes; those that a strategy starts would lose the results, or never meet
STARTS_NONE = Predicate(lambda name: not re.search("spawn|fork|notebook", name))
Strategy = Annotated[str, STARTS_NONE, "the name of a strategy that starts no processes, such as ddp"]
Layout = Literal["TCHW", "CTHW", "THWC", "THW"]  # the axes of a clip in an array
Fit = Literal["stretch", "crop", "pad"]  # of frames to a size
SamplingKind = Literal["uniform", "consecutive"]  # of the frames of a clip, or the steps of a series
SeriesSet = Literal["watch", "vowels", "gestures"]  # in packages
Missing = Literal["last", "interpolate"]  # what replaces missing values of a series
Places = Annotated[dict[str, str | None], "a group of paths"]
Node = Annotated[dict[str, Any], "a group of keys"]
Factory = Annotated[dict[str, Any], "a group of keys", Callable]  # whose class the code calls

WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text", type(None): "null"}


def in_words(kind: Any) -> str:
    """Returns the wording of a kind in error messages: its own words, or words for its type."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return next((text for text in arguments if isinstance(text, str)), None) or in_words(arguments[0])
    if origin in (Union, types.UnionType):
        return " or ".join(map(in_words, arguments))
    if origin is Literal:
        return "one of " + ", ".join(map(str, arguments))
    return "a list" if origin in (list, Sequence) else WORDS.get(kind, str(kind))
