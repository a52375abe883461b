"""How far apart two colours look, also to the colour-blind: Machado, Oliveira and Fernandes (2009), in full; CIE 1976."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.colors import to_rgb

Array = np.ndarray[Any, np.dtype[np.float64]]

SIMULATIONS: dict[str, Array] = {
    "none": np.eye(3),
    "protanopia": np.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array([[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]),
}
FAR = 15.0
"""Colours that are so far apart are told apart in a marker of seven points."""
_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def distance(one: str, other: str, kind: str) -> float:
    """How far apart two colours look."""
    return float(np.linalg.norm(_lab(one, kind) - _lab(other, kind)))


def _lab(colour: str, kind: str) -> Array:
    rgb = np.array(to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    x, y, z = _XYZ @ np.clip(SIMULATIONS[kind] @ linear, 0, 1) / _XYZ.sum(1)
    fx, fy, fz = (np.cbrt(t) if t > 216 / 24389 else (24389 / 27 * t + 16) / 116 for t in (x, y, z))
    return np.array([116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)])
