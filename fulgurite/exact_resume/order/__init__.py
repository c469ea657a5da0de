"""The order of the data and the seeds of its batches."""
