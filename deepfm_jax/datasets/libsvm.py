"""Files of libsvm, libfm and libffm, with a schema inferred from the files."""

import dataclasses
import os

from deepfm_jax.datasets.options import BuildOptions
from deepfm_jax.datasets.tabular import Tabular, train_files
from deepfm_jax.infer_schema.infer import infer_schema
from deepfm_jax.readers.libsvm_files import FEATURE_EXTENSIONS


class Libsvm(Tabular, skip_registration=True):
    """Rows of (id, value) features: ``label id:value ...``, or ``label field:id:value ...``.

    Reads ``.libsvm``, ``.libfm`` and ``.svm`` files, in which the position of a feature is its
    field (as in the public CTR benchmarks) or all features have one field, and ``.libffm`` and
    ``.ffm`` files. Columns ``field_N`` are inferred from the first rows of ``train`` (see
    ``infer_libsvm``) unless ``options.schema`` gives them. The source is as for ``tabular``.

    Source: Chang and Lin 2011, LIBSVM; Rendle 2012, libFM; Juan et al. 2016, libffm.
    """

    name = "libsvm"
    EXTENSIONS = FEATURE_EXTENSIONS

    @classmethod
    def complete(cls, options: BuildOptions, source: str | os.PathLike[str] | None) -> BuildOptions:
        if options.schema is not None or source is None:
            return options
        inference = infer_schema(train_files(source, cls.EXTENSIONS))
        return dataclasses.replace(options, schema=inference.schema.to_dict())
