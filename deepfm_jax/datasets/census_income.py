"""Census-Income (KDD), in its original CSV layout."""

from deepfm_jax.datasets.click_log import ClickLogBuilder
from deepfm_jax.datasets.files import find_file
from deepfm_jax.datasets.splitting import HALVES, ReadSplit, split_by_draw
from deepfm_jax.errors import UserError
from deepfm_jax.schema import (
    Categorical,
    Column,
    Ignored,
    Label,
    Numeric,
    Schema,
    TextFormat,
)

# The columns in file order, without the label at the end.
_COLUMNS = (
    *("age", "class_of_worker", "industry_code", "occupation_code", "education", "wage_per_hour"),
    *("enrolled_last_week", "marital_status", "major_industry", "major_occupation", "race"),
    *("hispanic_origin", "sex", "labor_union", "reason_for_unemployment", "employment_status"),
    *("capital_gains", "capital_losses", "dividends", "tax_filer", "previous_region"),
    *("previous_state", "household_and_family", "household_summary", "instance_weight"),
    *("migration_change_in_msa", "migration_change_in_region", "migration_move_in_region"),
    *("same_house_one_year", "migration_from_sunbelt", "persons_worked_for_employer"),
    *("family_members_under_18", "father_birth_country", "mother_birth_country"),
    *("birth_country", "citizenship", "own_business", "veterans_questionnaire"),
    *("veterans_benefits", "weeks_worked", "year"),
)
_NUMBERS = (
    *("age", "wage_per_hour", "capital_gains", "capital_losses", "dividends"),
    *("persons_worked_for_employer", "weeks_worked"),
)
# How many people a row represents: not a feature, and the literature does not weight by it.
_WEIGHT = "instance_weight"


def _column(name: str) -> Column:
    if name == _WEIGHT:
        return Ignored(name)
    if name == "marital_status":  # The second task of the multi-task literature.
        return Label(name, positive="Never married", rank=1)
    if name in _NUMBERS:
        return Numeric(name, transform="quantile")
    return Categorical(name)


class CensusIncome(ClickLogBuilder, skip_registration=True):
    """Census-Income: whether a person earns more than 50,000 dollars a year; 39 fields.

    ``income`` is the first label; the second, ``marital_status``, is whether the person never
    married.

    Reads ``census-income.data`` and ``census-income.test``, plain or ``.gz``: 42 columns without a
    header, cells padded with a space, ``?`` for unknown. ``.data`` is train, and the rows of
    ``.test`` are split in half into valid and test by a seeded draw. If one of the two files is
    missing, the rows of the other are split 80/10/10 by a seeded draw.

    Source: Lane and Kohavi 2000, UCI Census-Income (KDD); split as by Ma et al. 2018, MMoE.
    """

    name = "census_income"
    SCHEMA = Schema(
        columns=(*map(_column, _COLUMNS), Label("income", values=("- 50000.", "50000+."))),
        text=TextFormat(header=False, quoting=False, trim=True, missing=("?",)),
    )

    def read_splits(self) -> dict[str, ReadSplit]:
        assert self.source is not None
        names = ("census-income.data", "census-income.test")
        train, test = (find_file(self.source, name) for name in names)
        if train is not None and test is not None:
            if self.options.time_column is not None:
                raise UserError(f"{self.source}: {names[1]} is held out; omit time_column")
            held_out = split_by_draw(self._files(test), HALVES)
            return {"train": self._files(train), **held_out}
        found = train or test
        if found is None:
            raise UserError(f"{self.source}: neither {names[0]} nor {names[1]} exists")
        return self._drawn(found)
