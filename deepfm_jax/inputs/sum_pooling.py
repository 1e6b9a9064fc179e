"""Sum pooling of the slots of a field."""

from deepfm_jax.inputs.encoder import InputEncoder


class SumPooling(InputEncoder):
    """e = sum_k x_k v_k: each value of a list is its own feature, as in libFM."""

    def weights(self, values):
        """a_k = x_k."""
        return values
