"""Files of runs on the disk: records of fits and cells, leases, signatures, logs of metrics, queries over all results.

record.py knows the folders of a fit and a cell, signature.py their names, lease.py who works on them, metrics_log.py
their metrics, query.py reads all results, garbage.py finds what can be deleted, process.py identifies a process,
provenance.py says which code and versions made a result, environment.py what is recorded of environment variables.
One writer per file, and every file appears whole.
"""
