"""Headrace beside what people would pick instead, measured side by side on one machine in one run: `make bench-peers`."""
