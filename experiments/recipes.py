"""Lists the recipes and their models, for ``--config=RECIPE`` and ``--config=RECIPE:MODEL``.

``deepfm-jax recipes --show=RECIPE`` prints the file of a recipe: its data, the settings of each
model, the expected results and the time of a run. For a recipe of your own, save it to a file, edit
it, and pass its path: ``--config=my_recipe.py:MODEL``.
"""

from absl import flags

from . import config_files, launcher

_SHOW = flags.DEFINE_string("show", None, "Print the file of this recipe.")


def main() -> None:
    """Prints the summary and the models of each recipe, or the file of one."""
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
