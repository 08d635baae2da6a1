"""The node's process: tails journals, ships batches and files, samples hardware."""
