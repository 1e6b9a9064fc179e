"""Times the training step of one peer: ``python torch_peers.py --system=NAME --rows=V``.

Runs under the peers' own Python, without deepfm_jax. From scratch (Linux, Python 3.11, CPU):

    python3.11 -m venv peers
    peers/bin/pip install torch==2.13.0
    peers/bin/pip install fbgemm-gpu-cpu==1.8.0 deepctr-torch==0.3.0 fuxictr==2.3.10

All systems train DeepFM on the batches of workload.py: 39 fields, 16 dimensions, a ReLU tower
400-400-400 without dropout or batch norm, first-order weights, the FM term, one bias; binary cross
entropy; float32 or mixed precision. A step is forward, backward and update. Batches are built
beforehand and lie in memory in the layout that the system reads, so no system pays for reading or
converting them; only the fit() of deepctr gathers its batches itself, so its times are given with
and without that. What a library adds is kept: fuxictr clips gradients, and the Adam of deepctr and
fuxictr is the unfused one.

The systems, in torch_models.py and torch_libraries.py:

    torch_adam         plain PyTorch, dense gradients, fused Adam
    torch_sparse_adam  the same with sparse gradients of the tables and SparseAdam for them
    torch_compile      torch_adam under torch.compile; meant for --device=cuda
    torch_tower        only the tower, without a table
    torch_scoring      only the forward pass
    deepctr            DeepCTR-Torch's DeepFM in its own fit()
    fuxictr            DeepFM of FuxiCTR's layers in its own train_step()
    fbgemm             FBGEMM's fused row-wise Adagrad, a table per field
    fbgemm_one_table   the same, one table that all fields share
    fbgemm_no_bags     the same table read without pooling
    ..._bf16           each of them in mixed precision, by torch.autocast to bfloat16

In mixed precision the tower's products, forward and backward, and the activations between its
layers are bfloat16; tables, weights and their gradients, optimizer state, FM term and loss are
float32. (Ours keeps the activations and the last layer in float32 too.) In training, autocast
surrounds only the forward pass of each step. It keeps its bfloat16 copies of the weights for as
long as it is on, so around a training loop it would compute every step with the first step's
weights. The loss is outside, in float32: deepctr and fuxictr take binary_cross_entropy of
probabilities, which autocast refuses on CUDA. bfloat16 needs no GradScaler.

Prints one line of JSON (workload.report) on stdout; the output of libraries goes to stderr.
Exits with status 2 and one line on stderr if a package is missing.
"""
# Runs in the peers' environment; ours has torch only with the extra ``parity``.
# pyright: reportMissingImports=false

import argparse
import contextlib
import sys

from workload import BATCH, BFLOAT16, FIELDS, batches, field_rows, report


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--system", required=True, metavar="NAME", help="what to time, see above")
    parser.add_argument("--rows", required=True, type=int, help="rows of the table, all fields")
    parser.add_argument("--steps", default=25, type=int, help="steps timed")
    parser.add_argument("--warmup", default=5, type=int, help="steps before them, at least 1")
    parser.add_argument("--threads", default=2, type=int, help="threads of PyTorch")
    parser.add_argument("--batch", default=BATCH, type=int, help="examples in a batch")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    arguments = parser.parse_args()
    if arguments.warmup < 1:
        parser.error("--warmup must be at least 1: the first step also sets up the optimizer")
    return arguments


def _missing(error: ModuleNotFoundError, system: str) -> int:
    print(
        f"{system} needs the package {error.name}, which is not installed here; "
        "the docstring of torch_peers.py has the pip commands",
        file=sys.stderr,
    )
    return 2


def main() -> int:
    """Times the system that the flags name; returns the exit status."""
    arguments = _arguments()
    name = arguments.system
    try:
        import torch
        from torch_libraries import SYSTEMS
        from torch_models import Run
    except ModuleNotFoundError as error:
        return _missing(error, name)
    measure_of = SYSTEMS.get(name.removesuffix(BFLOAT16))
    if measure_of is None:
        known = f"{', '.join(SYSTEMS)}, and each of them with {BFLOAT16}"
        print(f"no system {name!r}; use one of {known}", file=sys.stderr)
        return 2
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    ids, labels = batches(arguments.rows, arguments.warmup + arguments.steps, arguments.batch)
    run = Run(
        field_rows=field_rows(arguments.rows),
        ids=ids,
        labels=labels,
        warmup=arguments.warmup,
        device=torch.device(arguments.device),
        bfloat16=name.endswith(BFLOAT16),
    )
    # Libraries print and log to stdout, which is reserved for our one line.
    with contextlib.redirect_stdout(sys.stderr):
        try:
            measure = measure_of(run)
        except ModuleNotFoundError as error:
            return _missing(error, name)
        times = measure()
    report(
        **times,
        system=name,
        rows=FIELDS * run.field_rows,
        batch=arguments.batch,
        threads=arguments.threads,
        device=arguments.device,
        torch=torch.__version__,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
