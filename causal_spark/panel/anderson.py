"""Anderson acceleration of fixed-point maps, many at once.

Anderson (1965), type II: Walker and Ni, "Anderson Acceleration for Fixed-Point Iterations", SIAM J. Numer. Anal. 2011.
"""

from __future__ import annotations

import numpy as np

from causal_spark.panel.types import Floats, Ints


class Anderson:
    """Type II Anderson acceleration of a batch of fixed-point maps, each with its own restarts.

    shape: (n, ...), of the batch of states; window: how many differences of past iterates are combined: with 6 the
    low-rank fit of Proposition 99 at a penalty of .003 is not there after 500 sweeps, with 10 after 164. A problem
    whose residual grows to twice its best forgets its history, so its next step is a plain one.
    """

    def __init__(self, shape: tuple[int, ...], window: int = 10) -> None:
        n, *rest = shape
        dimension = int(np.prod(rest))
        self.images = np.zeros((n, window, dimension))
        self.residuals = np.zeros((n, window, dimension))
        self.last_image = np.zeros((n, dimension))
        self.last_residual = np.zeros((n, dimension))
        self.best = np.full(n, np.inf)
        self.count = 0

    def take(self, kept: Ints) -> Anderson:
        """The acceleration of some of the problems."""
        other = object.__new__(Anderson)
        for name in ("images", "residuals", "last_image", "last_residual", "best"):
            setattr(other, name, getattr(self, name)[kept])
        other.count = self.count
        return other

    def step(self, state: Floats, image: Floats) -> Floats:
        """The next state (n, ...) from a state and its image under the map."""
        n = state.shape[0]
        flat_image = image.reshape(n, -1)
        residual = flat_image - state.reshape(n, -1)
        size = np.sqrt(np.einsum("nd,nd->n", residual, residual))
        if self.count:
            slot = (self.count - 1) % self.images.shape[1]
            self.images[:, slot] = flat_image - self.last_image
            self.residuals[:, slot] = residual - self.last_residual
        restart = size > 2.0 * self.best
        self.images[restart] = 0.0
        self.residuals[restart] = 0.0
        self.best = np.where(restart, size, np.minimum(self.best, size))
        self.count += 1
        self.last_image, self.last_residual = flat_image, residual
        held = min(self.count - 1, self.images.shape[1])
        if not held:
            return image
        images, residuals = self.images[:, :held], self.residuals[:, :held]
        gram = residuals @ np.swapaxes(residuals, 1, 2)
        diagonal = np.arange(held)
        trace = gram[:, diagonal, diagonal].sum(axis=1)
        gram[:, diagonal, diagonal] += np.where(trace > 0, 1e-12 * trace, 1.0)[:, None]
        gamma = np.linalg.solve(gram, residuals @ residual[:, :, None])
        mixed = flat_image - (np.swapaxes(gamma, 1, 2) @ images)[:, 0]
        return mixed.reshape(state.shape)
