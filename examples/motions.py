"""Writes clips of four motions: a disc moves left, right, up or down, and enters again on the opposite side. Sizes,
rates, colours and noise vary, and no single frame tells the motion.

python examples/motions.py FOLDER 75     # 75 clips of each motion
"""

import sys
from pathlib import Path

import av
import numpy as np

folder, per_class = Path(sys.argv[1]), int(sys.argv[2])
draw = np.random.default_rng(0)
for name, direction in {"left": (0, -1), "right": (0, 1), "up": (-1, 0), "down": (1, 0)}.items():
    (folder / name).mkdir(parents=True)
    for number in range(per_class):
        size, rate = 2 * draw.integers(40, 90, 2), int(draw.integers(12, 31))  # height and width; frames per second
        background = draw.integers(0, 256, 3)
        disc = (background + draw.integers(80, 177, 3)) % 256
        start, speed, noise = size * draw.random(2), size.min() * draw.uniform(0.3, 1), draw.uniform(2, 25)
        radius, offsets = size.min() * draw.uniform(0.08, 0.2), np.indices(size).transpose(1, 2, 0)
        with av.open(str(folder / name / f"{number}.mp4"), "w") as video:
            stream = video.add_stream("libx264", rate=rate)
            stream.height, stream.width = map(int, size)
            for frame in range(int(rate * draw.uniform(1, 3))):
                centre = start + speed * frame / rate * np.array(direction)
                distance = np.linalg.norm((offsets - centre + size / 2) % size - size / 2, axis=2)
                pixels = np.where(distance[..., None] < radius, disc, background) + draw.normal(0, noise, (*size, 3))
                pixels = pixels.clip(0, 255).astype(np.uint8)
                video.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            video.mux(stream.encode())
