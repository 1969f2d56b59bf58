"""What people look at: tables in the terminal, the HTML page, and the statistics behind both. No torch, no W&B.

statistics.py ranks results and finds intervals of differences, factors.py what a choice is worth, leaderboard.py the
rows of a table; terminal.py, live.py, status.py and plan_table.py print, page.py writes the HTML page, export.py CSV,
JSON and Parquet, bibliography.py the papers.
"""
