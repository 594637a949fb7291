"""Opens a captured table with readers that other people wrote, and prints what they found as JSON.

    capture_reader.py TABLE

deltalake reads the log (checkpoints included) and the files, DuckDB the files that the log names; both must find the
same rows, and pandas' way of reading Parquet one file's.
"""

import json
import sys

import duckdb
import pyarrow.parquet
from deltalake import DeltaTable

table = DeltaTable(sys.argv[1])
files = table.file_uris()
rows = table.to_pyarrow_table().to_pylist()
counted = duckdb.sql(
    "select count(*), count(distinct request_id), min(sequence), max(sequence) from read_parquet(?)", params=[files]
).fetchall()[0]
first = pyarrow.parquet.read_table(files[0]) if files else None
rows.sort(key=lambda row: row["sequence"])


def shown(row):
    row = dict(row)
    row["time"] = row["time"].timestamp()
    row["date"] = str(row["date"])
    return row


print(
    json.dumps(
        {
            "version": table.version(),
            "files": len(files),
            "rows": len(rows),
            "duckdb": list(counted),
            "first_file_columns": first.column_names if first is not None else [],
            "ids": [row["request_id"] for row in rows],
            "fine_times": sum(row["time"].microsecond % 1000 != 0 for row in rows),
            "sequences": [row["sequence"] for row in rows],
            "first": shown(rows[0]) if rows else None,
            "last": shown(rows[-1]) if rows else None,
        }
    )
)
