"""The command ``deepfm-jax VERB --flags``; in a clone also ``python -m experiments VERB --flags``.

A verb is a launcher of this package, run as ``python -m`` would run it.
"""

import runpy
import sys

# In the order in which a user needs them.
VERBS = {
    "prepare": "encode raw click logs",
    "train": "train a model; without flags, a demo on simulated clicks",
    "evaluate": "measure a trained model on a split or on labelled rows",
    "predict": "score raw rows with a trained model",
    "compare": "train several models on the same rows and compare them",
    "recipes": "list the recipes that --config takes",
}

_HELP = """\
usage: deepfm-jax VERB [--flag=value ...]

{verbs}

deepfm-jax VERB --help shows the flags of a verb."""


def main() -> None:
    """Runs the verb in the first argument; exits with status 2 if it is unknown or missing."""
    verb = sys.argv[1] if len(sys.argv) > 1 else ""
    if verb in ("-h", "--help", "help"):
        verbs = "\n".join(f"  {name:<10}{line}" for name, line in VERBS.items())
        print(_HELP.format(verbs=verbs))
    elif verb in VERBS:
        del sys.argv[1]
        runpy.run_module(f"{__package__}.{verb}", run_name="__main__", alter_sys=True)
    else:
        mistake = f"there is no verb {verb!r}" if verb else "a verb is missing"
        print(f"error: {mistake}; use one of {', '.join(VERBS)}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
