"""The cluster's process: turns batches into the store's open files."""
