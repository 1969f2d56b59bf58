"""What lies on the disk: records of fits and cells, leases, signatures, results of all runs, garbage."""
