"""What tests ask of an encoder."""


def field_rows(encoder):
    """Rows of each field and cross."""
    return tuple(feature.rows for feature in encoder.features)
