"""How much room the embeddings use. Neither number sees noise: read both beside a probe."""

from __future__ import annotations

import numpy as np


def rankme(features: np.ndarray, epsilon: float = 1e-7) -> float:
    """The smooth rank of an embedding matrix: exp of the entropy of its singular values' shares.

    RankMe(Z) = exp(-sum_k p_k log p_k), p_k = s_k / sum_j s_j + epsilon, s the singular values of the uncentred Z.
    Source: Garrido et al., "RankMe: Assessing the Downstream Performance of Pretrained Self-Supervised Representations
    by Their Rank", ICML 2023 (arXiv 2210.02885), equations 1 and 2; epsilon as there.

    Args:
        features: (N, D) finite numbers. N bounds the result, so compare only equal N.
        epsilon: Keeps the logarithm finite.

    Returns:
        1 for a rank-one matrix, min(N, D) for one with equal singular values, 0 if all features are zero.

    Raises:
        ValueError: The features are not an (N, D) matrix of finite numbers with N >= 1.
    """
    singular = np.linalg.svd(_matrix(features), compute_uv=False)
    total = singular.sum()
    if total == 0:
        return 0.0
    share = singular / total + epsilon
    return float(np.exp(-(share * np.log(share)).sum()))


def per_dimension_std(features: np.ndarray) -> np.ndarray:
    """(D,) standard deviation of every dimension over the N rows; all near zero means that the encoder collapsed.

    Raises:
        ValueError: As for `rankme`.
    """
    return _matrix(features).std(axis=0)


def _matrix(features: np.ndarray) -> np.ndarray:
    matrix = np.asarray(features, np.float64)
    if matrix.ndim != 2 or matrix.size == 0 or not np.isfinite(matrix).all():
        raise ValueError(f"features must be a filled (N, D) matrix of finite numbers; got shape {matrix.shape}")
    return matrix
