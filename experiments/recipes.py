"""Lists the recipes, which ``--config=RECIPE`` and ``--config=RECIPE:MODEL`` name, with models.

``deepfm-jax recipes --show=RECIPE`` prints the file of one: its data, the settings of each model,
what to expect and how long a run takes. For a recipe of your own, save that as a file, edit it, and
pass its path: ``--config=my_recipe.py:MODEL``.
"""

from absl import flags

from . import config_files, launcher

_SHOW = flags.DEFINE_string("show", None, "Print the file of this recipe.")


def main() -> None:
    """Prints what each recipe is for and the models that it has, or the file of one."""
    if _SHOW.value is not None:
        path, _ = config_files.split(_SHOW.value)
        print(path.read_text(), end="")
        return
    lines = []
    for name, path in config_files.recipes().items():
        module = config_files.load(path)
        summary = (module.__doc__ or "").partition("\n")[0]
        lines += [f"{name}: {summary}", f"    {', '.join(module.MODELS)}"]
    print("\n".join(lines))


if __name__ == "__main__":
    launcher.run(main)
