"""Methods × seeds × budgets, trained alike and put into one table.

    FOLDER/METHOD/BUDGET/seed-N/   a run folder as ``crack-md train`` leaves it, and
        result.json                what was measured, once the run has ended
        error.json                 why it has none, after a failure
    FOLDER/teacher.json            the teacher on the same frames
    FOLDER/table.md, table.csv, runs.csv, summary.json

The run folders are the state of a study: its tables are written from them alone, and a
run with a result is never repeated.
"""
