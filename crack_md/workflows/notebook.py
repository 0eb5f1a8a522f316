"""Results as data frames, and as tables in a notebook."""

import html
from collections.abc import Mapping, Sequence
from typing import Any

from crack_md.errors import MissingDependencyError

SHOWN_ROWS = 50


class TableResult:
    """Mixed into results that are a table: rows with units in the column names."""

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Return one record per structure, in the order of the table."""
        raise NotImplementedError

    def to_dataframe(self) -> Any:
        """Return the rows as a pandas DataFrame.

        Raises:
            MissingDependencyError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise MissingDependencyError(
                "data frames need the package 'pandas', which is not installed; "
                "install it with: pip install pandas, or use .rows"
            ) from error
        return pandas.DataFrame(self.rows)

    def _repr_html_(self) -> str:
        """Return the table for a notebook, without columns that are empty."""
        return html_table(self.rows)


def html_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return an HTML table of the columns that have a value in some row."""
    names = dict.fromkeys(
        name for row in rows for name, value in row.items() if value not in (None, "")
    )
    head = "".join(f"<th>{html.escape(name)}</th>" for name in names)
    lines = [
        "<tr>"
        + "".join(f"<td>{html.escape(_cell(row.get(name)))}</td>" for name in names)
        + "</tr>"
        for row in rows[:SHOWN_ROWS]
    ]
    rest = len(rows) - SHOWN_ROWS
    more = f"<p>{rest} more rows</p>" if rest > 0 else ""
    body = "".join(lines)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return table + more


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def html_facts(facts: Mapping[str, Any]) -> str:
    """Return names and values in two columns, without what is empty."""
    lines = "".join(
        f"<tr><th>{html.escape(name)}</th><td>{html.escape(_cell(value))}</td></tr>"
        for name, value in facts.items()
        if value not in (None, "")
    )
    return f"<table><tbody>{lines}</tbody></table>"
