"""The strongest Fisher-vector product that we know how to write in plain PyTorch.

No automatic differentiation: with the activations of the batch cached once, a product is one
tangent pass, the small metric and one adjoint pass, each a handful of ``addmm``/``mm`` with
``out=``, so that nothing is allocated. Three things make it faster than the obvious version:

- the batch is cut into blocks of rows that stay in cache between the passes (``block_rows``);
- a layer's input h and its tangent ḣ lie side by side in one array [h, ḣ], so that the tangent of
  the layer, ż = h V' + ḣ W' + v_b, is a single product with the stacked matrix [V'; W'];
- the bias gradient, a sum over rows, is a product with a row of ones.

It is a baseline, to be beaten by what a user can reach without C++. ``fvp.py`` times it.

    N batch rows, O observation width, H hidden width, A action width
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor


class AnalyticFisher:
    """Fisher matrix of a tanh network with a diagonal Gaussian head, as a matrix-free operator.

    F = mean_n J_nᵀ M_n J_n with M = diag(1/σ²) for the means and 2 for every log-std
    (Gauss-Newton form of the Hessian of KL(old‖new) at new = old).

    Parameters
    ----------
    weights
        W_l, shape (out, in), and `biases` b_l, shape (out,), of each linear layer.
    log_std
        shape (A,).
    observations
        shape (N, O).
    block_rows
        rows that are worked on at a time; None takes the whole batch at once.
    """

    def __init__(
        self,
        weights: Sequence[Tensor],
        biases: Sequence[Tensor],
        log_std: Tensor,
        observations: Tensor,
        *,
        block_rows: int | None = None,
    ) -> None:
        self._sizes = [weights[0].shape[1], *(w.shape[0] for w in weights)]
        self._n_rows = observations.shape[0]
        block = min(block_rows or self._n_rows, self._n_rows)
        self._precision = torch.exp(-2.0 * log_std) / self._n_rows  # 1 / (N σ²)
        self._weights = [w.detach().clone() for w in weights]

        # stacked [V'; W'] of each layer but the first; the V half is filled at every product
        self._stacked = [
            torch.cat([torch.zeros_like(w.T), w.detach().T]).contiguous() for w in weights[1:]
        ]
        like = observations.new_empty
        self._ones = torch.ones(block, dtype=observations.dtype)
        self._cotangents = [like(block, size) for size in self._sizes[1:]]

        # one entry per block of rows: observations, and per hidden layer [h, ḣ] and 1 - h²
        self._blocks = []
        for x in observations.detach().split(block):
            h = x.contiguous()
            pairs, slopes = [], []
            for w, b in zip(weights[:-1], biases[:-1], strict=True):
                h = torch.tanh(torch.addmm(b.detach(), h, w.detach().T))
                pairs.append(torch.cat([h, torch.zeros_like(h)], dim=1))
                slopes.append(1.0 - h * h)
            self._blocks.append((x.contiguous(), pairs, slopes))

    @torch.no_grad()
    def __call__(self, vector: Tensor, *, damping: float = 0.0) -> Tensor:
        """Return (F + damping I) v for a flat v in PyTorch's parameter order, log_std last."""
        sizes, n_layers = self._sizes, len(self._weights)
        n_log_std = sizes[-1]

        # views of v and of the result, layer by layer
        result = torch.zeros_like(vector)
        v_weights, v_biases = self._split(vector)
        g_weights, g_biases = self._split(result)
        for stacked, v in zip(self._stacked, v_weights[1:], strict=True):
            stacked[: v.shape[1]].copy_(v.T)

        for x, pairs, slopes in self._blocks:
            rows = x.shape[0]
            cotangents = [c[:rows] for c in self._cotangents]
            ones = self._ones[:rows]

            # tangent: ḣ = (1 - h²) ∘ (h V' + ḣ W' + v_b)
            tangent = torch.addmm(v_biases[0], x, v_weights[0].T, out=cotangents[0])
            for layer in range(1, n_layers):
                width = sizes[layer]
                torch.mul(tangent, slopes[layer - 1], out=pairs[layer - 1][:, width:])
                tangent = torch.addmm(
                    v_biases[layer],
                    pairs[layer - 1],
                    self._stacked[layer - 1],
                    out=cotangents[layer],
                )

            # metric, then adjoint: W̄ = uᵀ h, b̄ = uᵀ 1, u ← (u W) ∘ (1 - h²)
            u = tangent.mul_(self._precision)
            for layer in reversed(range(n_layers)):
                h = pairs[layer - 1][:, : sizes[layer]] if layer else x
                g_weights[layer].addmm_(u.T, h)
                g_biases[layer].addmv_(u.T, ones)
                if layer:
                    u = torch.mm(u, self._weights[layer], out=cotangents[layer - 1])
                    u.mul_(slopes[layer - 1])

        result[-n_log_std:] = 2.0 * vector[-n_log_std:]
        return result.add_(vector, alpha=damping) if damping else result

    def _split(self, flat: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        weights, biases, start = [], [], 0
        for n_in, n_out in itertools.pairwise(self._sizes):
            weights.append(flat[start : start + n_in * n_out].view(n_out, n_in))
            start += n_in * n_out
            biases.append(flat[start : start + n_out])
            start += n_out
        return weights, biases
