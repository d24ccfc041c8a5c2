"""How much room the embeddings use, and what their differences say. No number sees all: read them beside a probe.

RankMe, alpha-ReQ and LiDAR are free of scale, so a shrinking cloud looks healthy to them, and so does noise: the
deviations stand beside them.
"""

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


def alpha_req(features: np.ndarray) -> float:
    """How fast the eigenvalues of the covariance fall: the exponent alpha of lambda_i ~ i^-alpha.

    Large: few directions hold all variance; near 0: all directions are equal, as in noise; about 1 is what the source
    finds in good representations. Source: Agrawal et al., "alpha-ReQ: Assessing Representation Quality in
    Self-Supervised Learning by measuring eigenspectrum decay", NeurIPS 2022. The source fits a line to log lambda over
    log i in a range chosen per network; here over all eigenvalues that stand above rounding, each rank weighing 1 / i,
    so that every octave of ranks counts alike.

    Args:
        features: (N, D) finite numbers; compare only equal N and D.

    Returns:
        alpha; NaN where fewer than two eigenvalues are left (a total collapse, or a single direction).

    Raises:
        ValueError: As for `rankme`.
    """
    matrix = _matrix(features)
    values = np.linalg.svd(matrix - matrix.mean(axis=0), compute_uv=False) ** 2
    # The features are computed in float32: eigenvalues below its rounding of the features' size are not theirs.
    floor = np.square(matrix).sum() * np.finfo(np.float32).eps ** 2 * max(matrix.shape)
    values = values[values > floor]
    if len(values) < 2:
        return float("nan")
    ranks = np.arange(1, len(values) + 1)
    # polyfit squares its weights.
    slope, _ = np.polyfit(np.log(ranks), np.log(values), 1, w=np.sqrt(1 / ranks))
    return float(-slope)


def lidar(features: np.ndarray, delta: float = 1e-4, epsilon: float = 1e-7) -> float:
    """The effective rank of what tells images apart, in units of what differs between views of one image.

    exp of the entropy of the shares of the eigenvalues of W^-1/2 B W^-1/2, with B the covariance of the images' means
    and W the mean covariance of the views of an image plus delta. Source: Thilak et al., "LiDAR: Sensing Linear Probing
    Performance in Joint Embedding SSL Architectures", ICLR 2024 (arXiv 2312.04000); delta and epsilon as there.

    Args:
        features: (N, V, D) finite numbers of V >= 2 views of each of N >= 2 images.
        delta: Added to W's diagonal.
        epsilon: Keeps the logarithm finite.

    Returns:
        1 to min(N - 1, D); 0 if all images have the same mean.

    Raises:
        ValueError: There are fewer images or views, or other numbers.
    """
    if features.ndim != 3 or min(features.shape[:2]) < 2:
        raise ValueError(f"features must be (N, V, D) of two images and views at least; got shape {features.shape}")
    images, views, dim = features.shape
    x = _matrix(features.reshape(-1, dim)).reshape(features.shape)
    means = x.mean(axis=1)
    within = (x - means[:, None]).reshape(-1, dim)
    centred = means - means.mean(axis=0)
    spread, axes = np.linalg.eigh(within.T @ within / (images * (views - 1)) + delta * np.eye(dim))
    whitened = centred @ (axes / np.sqrt(spread))
    values = np.linalg.svd(whitened, compute_uv=False) ** 2
    if values.sum() == 0:
        return 0.0
    share = values / values.sum() + epsilon
    return float(np.exp(-(share * np.log(share)).sum()))


def variance_shares(tokens: np.ndarray) -> tuple[float, float]:
    """How much of the tokens' variance their position explains, and how much their image.

    The variance of the means over images (over positions), divided by that of all tokens. An encoder that ignores its
    input and passes positions on has 1 and 0. With N images and T positions, tokens without any structure have about
    1 / N and 1 / T.

    Args:
        tokens: (N, T, D) finite numbers.

    Returns:
        (position, image); both NaN if all tokens are equal.

    Raises:
        ValueError: The tokens are not (N, T, D) finite numbers.
    """
    if tokens.ndim != 3:
        raise ValueError(f"tokens must be (N, T, D); got shape {tokens.shape}")
    x = _matrix(tokens.reshape(-1, tokens.shape[2])).reshape(tokens.shape)
    x = x - x.mean(axis=(0, 1))
    total = np.square(x).sum(axis=2).mean()
    # Of equal tokens, rounding is left.
    if total <= np.finfo(np.float32).eps ** 2 * np.square(tokens, dtype=np.float64).sum(axis=2).mean():
        return float("nan"), float("nan")
    by_position, by_image = (np.square(x.mean(axis=axis)).sum(axis=1).mean() for axis in (0, 1))
    return float(by_position / total), float(by_image / total)


def _matrix(features: np.ndarray) -> np.ndarray:
    matrix = np.asarray(features, np.float64)
    if matrix.ndim != 2 or matrix.size == 0 or not np.isfinite(matrix).all():
        raise ValueError(f"features must be a filled (N, D) matrix of finite numbers; got shape {matrix.shape}")
    return matrix
