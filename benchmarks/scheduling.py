"""What the scheduler gains: C4, C5, C6 and C14 on simulated step curves of unlike devices, beside ablations.

    python benchmarks/scheduling.py [--images 300] [--curves saturated ...]

The ablations: `keyed FIFO` is vLLM-Omni's rule (a batch agrees in size and guidance scale, what waits joins in order of
arrival up to the first that does not fit, and runs to its end), `same parameters` is dynamic batching of equals,
`fixed 16 rows` batches any mix of one size in order of arrival.
"""

import argparse

from simulated_ratios import print_simulated
from step_curves import CURVES


def main() -> None:
    """Simulate or measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=300, help="images of each simulated run")
    parser.add_argument("--curves", nargs="+", choices=sorted(CURVES), default=list(CURVES))
    options = parser.parse_args()
    print_simulated(options.images, options.curves)


if __name__ == "__main__":
    main()
