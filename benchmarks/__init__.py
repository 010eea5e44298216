"""Speed and memory of soo-marl, as ratios against references timed in the same run: ``python -m benchmarks``."""
