"""The report: reads the JSON, CSV and PNG files of finished stages and writes one page and one summary."""
