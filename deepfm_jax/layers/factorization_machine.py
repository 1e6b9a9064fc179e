"""The second-order term of a factorization machine."""

import jax.numpy as jnp

from deepfm_jax.typing import Embeddings, Logits


def factorization_machine(embeddings: Embeddings) -> Logits:
    """Sum of the inner products of all pairs of field embeddings.

    sum_{i<j} <e_i, e_j> = 1/2 (||sum_i e_i||^2 - sum_i ||e_i||^2), which costs O(F D) instead of
    the double sum's O(F^2 D). With e_i = x_i v_i this is the pairwise term of Rendle's Eq. 1.

    Args:
      embeddings: e_i = x_i v_i, [B, F, D]: latent vectors already multiplied by their values.

    Returns:
      The pairwise term of the logit, [B].

    Source: Rendle 2010, "Factorization Machines", Eq. 1 and Lemma 3.1; Guo et al. 2017, "DeepFM",
      Eq. 2 (arXiv 1703.04247). No deviation.
    """
    total = jnp.einsum("bfd->bd", embeddings)
    square_of_sum = jnp.einsum("bd,bd->b", total, total)
    sum_of_squares = jnp.einsum("bfd,bfd->b", embeddings, embeddings)
    return 0.5 * (square_of_sum - sum_of_squares)
