"""`python -m tools.bicep_gate [FOLDER]`; see the package's docstring."""

import sys
from pathlib import Path

from tools.bicep_gate import check


def main() -> int:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path("infra")
    problems = check(folder)
    for problem in problems:
        sys.stdout.write(f"{problem}\n")
    sys.stdout.write(f"{len(problems)} problems in {folder}\n" if problems else f"{folder}: nothing found\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
